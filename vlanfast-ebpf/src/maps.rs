//! The maps, by the names under which they are pinned. The loader overrides the sizes of
//! `ENDPOINTS`, `NEIGHBORS`, `ROUTES` and `FLOWS`.

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray},
};
use vlanfast_common::{
    Buckets, Claim, Counters, Endpoint, EndpointKey, Flow, FlowKey, Neighbor, NeighborKey, Parent,
    Route, RouteCacheEntry, Settings, Status, Vlan, VlanPair, VlanPairCounters,
};

/// What was counted, by [`Vlan::key`].
#[map]
pub static COUNTERS: PerCpuArray<Counters> = PerCpuArray::with_max_entries(Vlan::COUNT, 0);

/// The heartbeat, and how far the tables can be trusted.
#[map]
pub static SETTINGS: Array<Settings> = Array::with_max_entries(1, 0);

/// The loader's report to `vlanfast status`. The programs do not read it.
#[map]
pub static STATUS: Array<Status> = Array::with_max_entries(1, 0);

// The loader keeps the next five in step with the kernel's devices and addresses.

/// The device of each VLAN, by VID; the trunk itself at 0.
#[map]
pub static VLANS: Array<Parent> = Array::with_max_entries(Parent::COUNT, 0);

/// The VIDs of the VLAN devices that have the program `vlanfast_parent`, by ifindex.
#[map]
pub static DEVICES: HashMap<u32, u32> = HashMap::with_max_entries(Parent::COUNT, 0);

/// The devices that receive on a VLAN, by VID and MAC.
#[map]
pub static ENDPOINTS: HashMap<EndpointKey, Endpoint> = HashMap::with_max_entries(16_384, 0);

/// The endpoint that has an address, by VID and address.
#[map]
pub static NEIGHBORS: HashMap<NeighborKey, Neighbor> = HashMap::with_max_entries(65_536, 0);

/// The VLAN and MAC to which a shortcut leads, by destination address.
#[map]
pub static ROUTES: HashMap<NeighborKey, Route> = HashMap::with_max_entries(65_536, 0);

// The programs write the rest.

/// The stations on the wire that claim an address of `NEIGHBORS`. The loader reads and clears them.
#[map]
pub static CLAIMS: LruHashMap<NeighborKey, Claim> = LruHashMap::with_max_entries(4_096, 0);

/// The flows of `--shortcut learned`.
#[map]
pub static FLOWS: LruHashMap<FlowKey, Flow> = LruHashMap::with_max_entries(65_536, 0);

/// What the flows between two VLANs did, in sum.
#[map]
pub static PAIRS: HashMap<VlanPair, VlanPairCounters> = HashMap::with_max_entries(4_096, 0);

/// An entry of zeros, which is copied to make one in `FLOWS` without using the stack.
#[map]
pub static NEW_FLOW: Array<Flow> = Array::with_max_entries(1, 0);

/// An entry of zeros, which is copied to make one in `PAIRS` without using the stack.
#[map]
pub static NEW_PAIR: Array<VlanPairCounters> = Array::with_max_entries(1, 0);

/// The token buckets of each VLAN, by VID.
#[map]
pub static BUCKETS: Array<Buckets> = Array::with_max_entries(Parent::COUNT, 0);

/// Where packets that leave by VLAN devices go, by [`RouteCacheEntry::slot`].
#[map]
pub static SHORTCUT_CACHE: PerCpuArray<RouteCacheEntry> =
    PerCpuArray::with_max_entries(RouteCacheEntry::SLOTS, 0);

/// One number, which [`log::opaque`](crate::log::opaque) writes and reads back.
#[map]
pub static OPAQUE: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

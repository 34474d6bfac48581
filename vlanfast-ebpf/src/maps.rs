//! The maps, by the names under which they are pinned.

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray},
};
use vlanfast_common::{
    Buckets, Claim, Counters, Endpoint, EndpointKey, Flow, FlowKey, Neighbor, NeighborKey, VlanPairCounters,
    VlanPair, Parent, Route, Settings, Status, Vlan, RouteCacheEntry,
};

#[map]
pub static COUNTERS: PerCpuArray<Counters> = PerCpuArray::with_max_entries(Vlan::COUNT, 0);

#[map]
pub static SETTINGS: Array<Settings> = Array::with_max_entries(1, 0);

// Not read here: the loader's report to whoever asks for `status`.
#[map]
pub static STATUS: Array<Status> = Array::with_max_entries(1, 0);

// Kept in sync by the loader.

#[map]
pub static VLANS: Array<Parent> = Array::with_max_entries(Parent::COUNT, 0);

/// The VLANs of those devices that have a program of ours, by ifindex.
#[map]
pub static DEVICES: HashMap<u32, u32> = HashMap::with_max_entries(Parent::COUNT, 0);

/// The loader sets the size of the hashes below.
#[map]
pub static ENDPOINTS: HashMap<EndpointKey, Endpoint> = HashMap::with_max_entries(16_384, 0);

#[map]
pub static NEIGHBORS: HashMap<NeighborKey, Neighbor> = HashMap::with_max_entries(65_536, 0);

#[map]
pub static ROUTES: HashMap<NeighborKey, Route> = HashMap::with_max_entries(65_536, 0);

// Kept by the programs. The loader sets the size.

/// Who on the wire says that he has an address of `NEIGHBORS`.
#[map]
pub static CLAIMS: LruHashMap<NeighborKey, Claim> = LruHashMap::with_max_entries(4_096, 0);

#[map]
pub static FLOWS: LruHashMap<FlowKey, Flow> = LruHashMap::with_max_entries(65_536, 0);

#[map]
pub static PAIRS: HashMap<VlanPair, VlanPairCounters> = HashMap::with_max_entries(4_096, 0);

/// What new entries are made of: all zero.
#[map]
pub static NEW_FLOW: Array<Flow> = Array::with_max_entries(1, 0);

#[map]
pub static NEW_PAIR: Array<VlanPairCounters> = Array::with_max_entries(1, 0);

/// For [`report::unknown`](crate::report::unknown).
#[map]
pub static UNKNOWN: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// What was found for packets that leave by VLAN devices, by [`RouteCacheEntry::slot`].
#[map]
pub static SHORTCUT_CACHE: PerCpuArray<RouteCacheEntry> = PerCpuArray::with_max_entries(RouteCacheEntry::SLOTS, 0);

/// By VID.
#[map]
pub static BUCKETS: Array<Buckets> = Array::with_max_entries(Parent::COUNT, 0);

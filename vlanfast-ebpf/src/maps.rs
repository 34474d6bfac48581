//! The maps, by the names under which they are pinned.

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, PerCpuArray},
};
use vlanfast_common::{
    Bucket, Counters, Endpoint, EndpointKey, Neighbor, NeighborKey, Parent, Route, Settings,
    Status, Vlan,
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

/// The loader sets the size of the hashes.
#[map]
pub static ENDPOINTS: HashMap<EndpointKey, Endpoint> = HashMap::with_max_entries(16_384, 0);

#[map]
pub static NEIGHBORS: HashMap<NeighborKey, Neighbor> = HashMap::with_max_entries(65_536, 0);

#[map]
pub static ROUTES: HashMap<NeighborKey, Route> = HashMap::with_max_entries(65_536, 0);

/// By VID.
#[map]
pub static BUCKETS: Array<Bucket> = Array::with_max_entries(Parent::COUNT, 0);

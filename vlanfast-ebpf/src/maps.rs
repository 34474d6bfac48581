//! The maps, by the names under which they are pinned.

use aya_ebpf::{
    macros::map,
    maps::{Array, PerCpuArray},
};
use vlanfast_common::{Counters, Settings, Vlan};

#[map]
pub static COUNTERS: PerCpuArray<Counters> = PerCpuArray::with_max_entries(Vlan::COUNT, 0);

/// Not read here yet: the loader's note to whoever detaches after it.
#[map]
pub static SETTINGS: Array<Settings> = Array::with_max_entries(1, 0);

//! Counts of packets and bytes, made by the tests themselves to compare with the counters of vlanfast.

use std::collections::BTreeMap;

/// What a frame counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cast {
    Unicast,
    Multicast,
    Broadcast,
}

/// Where a frame is counted: the number of the VLAN, or why it has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CounterKey {
    Vlan(u16),
    Service,
    Truncated,
}

/// Packets by cast, and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    pub packets: [u64; 3],
    pub bytes: u64,
}

/// One direction's traffic.
pub type Sums = BTreeMap<CounterKey, Sum>;

/// Adds `count` frames of a length.
pub fn add(sums: &mut Sums, row: CounterKey, cast: Cast, count: u64, length: usize) {
    let sum = sums.entry(row).or_default();
    sum.packets[cast as usize] += count;
    sum.bytes += count * length as u64;
}

//! Counts of packets and bytes that the tests take themselves, to compare with the counters of vlanfast.

use std::collections::BTreeMap;

/// The cast under which a frame is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cast {
    Unicast,
    Multicast,
    Broadcast,
}

/// The row in which a frame is counted: its VLAN, or the reason why it has none.
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

/// The traffic of one direction.
pub type Sums = BTreeMap<CounterKey, Sum>;

/// Adds `count` frames of a length.
pub fn add(sums: &mut Sums, row: CounterKey, cast: Cast, count: u64, length: usize) {
    let sum = sums.entry(row).or_default();
    sum.packets[cast as usize] += count;
    sum.bytes += count * length as u64;
}

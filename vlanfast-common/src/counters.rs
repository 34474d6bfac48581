//! What is counted, and where. Read by user space straight from the pinned map `COUNTERS`.

use crate::{Cast, Wire};

/// One value of the per-CPU array `COUNTERS`, whose key is a [`Vlan`](crate::Vlan).
///
/// 64 bytes, a cache line, host byte order; every field is a total since the map was made. Only its
/// own CPU writes a value, with softirqs off, so plain additions lose nothing.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames that came in from the wire.
    pub rx: Tally,
    /// Frames that left for the wire.
    pub tx: Tally,
}

/// Packets and bytes of one direction.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Wire packets by [`Cast`]: unicast, multicast, broadcast.
    pub packets: [u64; 3],
    /// Bytes on the wire from the destination MAC on, tags included, FCS not.
    pub bytes: u64,
}

const _: () = assert!(size_of::<Counters>() == 64);

// SAFETY: `repr(C)`, only `u64`s, so no padding and every bit pattern is valid.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Counters {}

/// Which way a frame goes, seen from the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Rx,
    Tx,
}

impl Counters {
    /// The side that a direction counts on.
    #[inline(always)]
    pub const fn side(&mut self, direction: Direction) -> &mut Tally {
        match direction {
            Direction::Rx => &mut self.rx,
            Direction::Tx => &mut self.tx,
        }
    }
}

impl Tally {
    /// Counts one frame.
    #[inline(always)]
    pub const fn add(&mut self, cast: Cast, wire: Wire) {
        self.packets[cast as usize] += wire.packets;
        self.bytes += wire.bytes;
    }

    /// Adds another CPU's share.
    pub fn merge(&mut self, other: &Self) {
        for (sum, part) in self.packets.iter_mut().zip(other.packets) {
            *sum += part;
        }
        self.bytes += other.bytes;
    }

    /// Packets of every cast.
    pub fn total(&self) -> u64 {
        self.packets.iter().sum()
    }
}

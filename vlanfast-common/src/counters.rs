//! What is counted, and where. Read by user space straight from the pinned map `COUNTERS`.

use crate::{Cast, Reason, Verdict, Wire};

/// One value of the per-CPU array `COUNTERS`, whose key is a [`Vlan`](crate::Vlan).
///
/// 144 bytes, host byte order; every field is a total since the map was made, and those that every frame
/// adds to are the first cache line. Only its own CPU writes a value, with softirqs off, so plain additions
/// lose nothing.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames that came in from the wire.
    pub rx: Tally,
    /// Frames that left for the wire.
    pub tx: Tally,
    /// Packets that came in and went to their only receiver.
    pub steered: u64,
    /// Packets that came in for an address that two here claim.
    pub disputed: u64,
    /// Packets that came in and were dropped, by [`Reason`].
    pub dropped: [u64; Reason::ALL.len()],
    /// Packets that were to leave and are for this host: they are not on the wire, and not in `tx`.
    pub reflected: u64,
    /// Packets that were to leave for the router and took the shortcut: the same.
    pub shortcut: u64,
    /// Packets that came in and went straight to their receiver's device.
    pub delivered: u64,
    #[cfg(feature = "next-layout")]
    pub next: u64,
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

const SIZE: usize = if cfg!(feature = "next-layout") {
    152
} else {
    144
};
const _: () = assert!(size_of::<Counters>() == SIZE);

// SAFETY: `repr(C)`, only `u64`s, so no padding and every bit pattern is valid.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Counters {}

/// Which way a frame goes, seen from the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Rx,
    Tx,
}

impl Direction {
    pub const ALL: [Self; 2] = [Self::Rx, Self::Tx];

    /// The word in `counters` and in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rx => "rx",
            Self::Tx => "tx",
        }
    }
}

impl Counters {
    /// What a direction counted.
    pub const fn tally(&self, direction: Direction) -> &Tally {
        match direction {
            Direction::Rx => &self.rx,
            Direction::Tx => &self.tx,
        }
    }

    /// What came in, by the name of the verdict over it.
    pub fn rx_verdicts(&self) -> [(&'static str, u64); 4] {
        let drop = self.dropped.iter().sum();
        // A reader sees a frame in one sum and not yet in the other.
        let done = self.steered + self.delivered + drop;
        let pass = self.rx.total().saturating_sub(done);
        [
            ("pass", pass),
            ("steer", self.steered),
            ("deliver", self.delivered),
            ("drop", drop),
        ]
    }

    /// What was to leave: what is reflected or takes the shortcut does not.
    pub fn tx_verdicts(&self) -> [(&'static str, u64); 3] {
        [
            ("pass", self.tx.total()),
            ("reflect", self.reflected),
            ("shortcut", self.shortcut),
        ]
    }

    /// Dropped packets by the name of the reason.
    pub fn drops(&self) -> [(&'static str, u64); Reason::ALL.len()] {
        Reason::ALL.map(|reason| (reason.name(), self.dropped[reason as usize]))
    }

    /// Counts one frame; `done` is what was made of the verdict over it.
    #[inline(always)]
    pub const fn add(
        &mut self,
        direction: Direction,
        cast: Cast,
        wire: Wire,
        verdict: Verdict,
        done: Verdict,
    ) {
        if !matches!(
            done,
            Verdict::Reflect { .. } | Verdict::Shortcut { .. } | Verdict::Hairpin
        ) {
            self.side(direction).add(cast, wire);
        }
        match verdict {
            Verdict::Pass | Verdict::Hairpin | Verdict::CloneToLocal { .. } => {}
            Verdict::Reflect { .. } => self.reflected += wire.packets,
            Verdict::Shortcut { .. } | Verdict::ShortcutAndProbe { .. } => self.shortcut += wire.packets,
            Verdict::Deliver { .. } => self.delivered += wire.packets,
            Verdict::Conflict => self.disputed += wire.packets,
            Verdict::Steer { .. } => self.steered += wire.packets,
            Verdict::Drop(reason) => self.dropped[reason as usize] += wire.packets,
        }
    }

    /// Adds another CPU's share.
    pub fn merge(&mut self, other: &Self) {
        self.rx.merge(&other.rx);
        self.tx.merge(&other.tx);
        self.steered += other.steered;
        self.disputed += other.disputed;
        self.reflected += other.reflected;
        self.shortcut += other.shortcut;
        self.delivered += other.delivered;
        for (sum, part) in self.dropped.iter_mut().zip(other.dropped) {
            *sum += part;
        }
    }

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

    /// Packets by the name of their cast.
    pub fn by_cast(&self) -> [(&'static str, u64); 3] {
        Cast::ALL.map(|cast| (cast.name(), self.packets[cast as usize]))
    }

    /// Packets of every cast.
    pub fn total(&self) -> u64 {
        self.packets.iter().sum()
    }
}

//! The map `COUNTERS`, which user space reads while the programs write it: what is counted of a VLAN.

use bytemuck::{Pod, Zeroable};

/// One value of the per-CPU array `COUNTERS`, whose key is a [`Vlan`](super::Vlan).
///
/// It has 144 bytes in host byte order. Every field is a total since the map was made. The first cache line has the
/// fields that every frame adds to. Only its own CPU writes a value, with softirqs off, so plain additions lose
/// nothing.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Counters {
    /// Frames that came in from the wire.
    pub rx: Tally,
    /// Frames that left for the wire.
    pub tx: Tally,
    /// Packets that came in and were steered to the one endpoint that they ask for.
    pub steered: u64,
    /// Packets that came in and ask for an address that two endpoints claim.
    pub disputed: u64,
    /// Packets that came in and were dropped, by [`Reason`].
    pub dropped: [u64; Reason::ALL.len()],
    /// Packets that were to leave and are for this host. They are not on the wire, and not in `tx`.
    pub reflected: u64,
    /// Packets that were to leave for the router and took the shortcut. They are not on the wire, and not in `tx`.
    pub shortcut: u64,
    /// Packets that came in and were redirected to their endpoint's device.
    pub delivered: u64,
    #[cfg(feature = "next-layout")]
    pub next: u64,
}

/// Packets and bytes of one direction.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
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

/// The direction of a frame, seen from the host.
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
    /// What was counted of one direction.
    pub const fn tally(&self, direction: Direction) -> &Tally {
        match direction {
            Direction::Rx => &self.rx,
            Direction::Tx => &self.tx,
        }
    }

    /// Packets that came in, by the name of the verdict over them.
    pub fn rx_verdicts(&self) -> [(&'static str, u64); 4] {
        let drop = self.dropped.iter().sum();
        // User space may read a value between two additions, and see a frame in one sum and not yet in the other.
        let done = self.steered + self.delivered + drop;
        let pass = self.rx.total().saturating_sub(done);
        [
            ("pass", pass),
            ("steer", self.steered),
            ("deliver", self.delivered),
            ("drop", drop),
        ]
    }

    /// Packets that were to leave, by the name of the verdict over them.
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

    /// Adds the counters of another CPU.
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

    /// The tally that frames of a direction add to.
    #[inline(always)]
    pub const fn side(&mut self, direction: Direction) -> &mut Tally {
        match direction {
            Direction::Rx => &mut self.rx,
            Direction::Tx => &mut self.tx,
        }
    }
}

impl Tally {
    /// Adds one frame.
    #[inline(always)]
    pub const fn add(&mut self, cast: Cast, wire: Wire) {
        self.packets[cast as usize] += wire.packets;
        self.bytes += wire.bytes;
    }

    /// Adds the counters of another CPU.
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

/// How many stations a frame is sent to, by its destination MAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Cast {
    Unicast = 0,
    Multicast = 1,
    Broadcast = 2,
}

impl Cast {
    pub const ALL: [Self; 3] = [Self::Unicast, Self::Multicast, Self::Broadcast];

    /// The word in `counters` and in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unicast => "unicast",
            Self::Multicast => "multicast",
            Self::Broadcast => "broadcast",
        }
    }
}

/// Why a frame is dropped. The number is the place in [`Counters::dropped`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Reason {
    /// It is a request for an address, goes to everyone, and exceeds the VLAN's `--storm-limit`.
    Storm = 0,
    /// The host has no device for its VLAN.
    ShedVlan = 1,
    /// No endpoint of its VLAN has the destination MAC.
    ShedMac = 2,
    /// It comes back from the router, and its clone took the shortcut: the receiver has it already.
    Returned = 3,
    /// It is any other group frame that goes to everyone, and exceeds the VLAN's `--group-limit`.
    Group = 4,
}

impl Reason {
    pub const ALL: [Self; 5] = [
        Self::Storm,
        Self::ShedVlan,
        Self::ShedMac,
        Self::Returned,
        Self::Group,
    ];

    /// Reads the number; `None` for one that no reason has.
    #[inline(always)]
    pub const fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::Storm,
            1 => Self::ShedVlan,
            2 => Self::ShedMac,
            3 => Self::Returned,
            4 => Self::Group,
            _ => return None,
        })
    }

    /// The word in `counters` and in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Storm => "storm",
            Self::ShedVlan => "shed_vlan",
            Self::ShedMac => "shed_mac",
            Self::Returned => "returned",
            Self::Group => "group",
        }
    }
}

/// How much a buffer is on the wire.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Wire {
    pub packets: u64,
    /// The bytes of all packets together, from the destination MAC on, tags included, FCS not.
    pub bytes: u64,
}

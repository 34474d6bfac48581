//! What a hook does with a frame.

use crate::{Mac, Vid};

/// A decision over a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The kernel's own path: 8021q, then macvlan.
    Pass,
    /// The same, for everyone: the address that is asked for is claimed by two receivers. Counted whatever is
    /// switched on, heartbeat or not.
    Conflict,
    /// The same: it was reflected, and comes in a second time. It was never on the wire.
    Hairpin,
    /// The only receiver's MAC becomes the destination, and the kernel's own path leads to that one alone.
    Steer { mac: Mac },
    /// It is for this host, for whoever has the MAC, and goes to the device of its VLAN as if it came in
    /// there: to the host itself, or by macvlan to a container.
    Reflect { mac: Mac },
    /// It is for everyone: passed, and a copy is reflected to the side that would not hear it.
    CloneToLocal { mac: Mac },
    /// It is for the router, and its receiver is a container of this host on another VLAN, with this MAC: it
    /// goes to that VLAN's device as if the router had sent it.
    Shortcut { vid: Vid, mac: Mac },
    /// The same with a copy; the packet itself goes to the router, to see whether it still sends it on.
    ShortcutAndProbe { vid: Vid, mac: Mac },
    /// It is for one macvlan or macvtap in the trunk's own namespace, and goes to that device at once.
    Deliver { ifindex: u32 },
    /// It ends here.
    Drop(Reason),
}

impl Verdict {
    /// In one number, as a BPF function returns it: four bits of kind, twelve of a VID, 48 of a MAC. Passing
    /// is 0.
    #[inline(always)]
    pub const fn to_bits(self) -> u64 {
        match self {
            Self::Pass => 0,
            Self::Conflict => kind(1),
            Self::Steer { mac } => kind(2) | mac.to_bits(),
            Self::Drop(Reason::Group) => kind(13),
            Self::Drop(reason) => kind(3 + reason as u64),
            Self::Hairpin => kind(7),
            Self::Reflect { mac } => kind(8) | mac.to_bits(),
            Self::CloneToLocal { mac } => kind(9) | mac.to_bits(),
            Self::Shortcut { vid, mac } => kind(10) | (vid.get() as u64) << 48 | mac.to_bits(),
            Self::ShortcutAndProbe { vid, mac } => kind(11) | (vid.get() as u64) << 48 | mac.to_bits(),
            Self::Deliver { ifindex } => kind(12) | ifindex as u64,
        }
    }

    /// The other way round.
    #[inline(always)]
    pub const fn from_bits(bits: u64) -> Self {
        let mac = Mac::from_bits(bits);
        let vid = Vid::new((bits >> 48) as u16);
        match bits >> 60 {
            1 => Self::Conflict,
            2 => Self::Steer { mac },
            // As `to_bits` has it, by the numbers of `Reason` up to where others had taken the next.
            3 => Self::Drop(Reason::Storm),
            4 => Self::Drop(Reason::ShedVlan),
            5 => Self::Drop(Reason::ShedMac),
            6 => Self::Drop(Reason::Returned),
            7 => Self::Hairpin,
            8 => Self::Reflect { mac },
            9 => Self::CloneToLocal { mac },
            10 => Self::Shortcut { vid, mac },
            11 => Self::ShortcutAndProbe { vid, mac },
            12 => Self::Deliver {
                ifindex: bits as u32,
            },
            13 => Self::Drop(Reason::Group),
            _ => Self::Pass,
        }
    }
}

#[inline(always)]
const fn kind(number: u64) -> u64 {
    number << 60
}

/// Why a frame is dropped; the number is the place in [`Counters`](crate::Counters).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Reason {
    /// It asks everyone for an address, and the VLAN had its share of those.
    Storm = 0,
    /// The host has no device for its VLAN.
    ShedVlan = 1,
    /// Nobody on its VLAN has the destination MAC.
    ShedMac = 2,
    /// It took the shortcut as well as the way by the router, and comes back from there.
    Returned = 3,
    /// It is for everyone for any other reason, and the VLAN had its share of those.
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

//! What a hook does with a frame.

use crate::abi::{Mac, Reason, Vid};

/// A decision over a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The frame takes the kernel's own path: 8021q, then macvlan.
    Pass,
    /// Two endpoints claim the address that the frame asks for. It is passed, so that everyone hears it. It is counted
    /// whatever is switched on, heartbeat or not.
    Conflict,
    /// Egress reflected the frame to the trunk itself, and it comes in a second time. It is passed, but was never on the
    /// wire.
    Hairpin,
    /// One endpoint alone is asked for. Its MAC becomes the destination, and the kernel's own path leads to that one.
    Steer { mac: Mac },
    /// The frame is for an endpoint of this host with this MAC. It goes to the device of its VLAN as if it came in there:
    /// to the host itself, or by macvlan to a container.
    Reflect { mac: Mac },
    /// The frame is for everyone. It is passed, and a clone goes to the endpoint of this host that would not hear it.
    CloneToLocal { mac: Mac },
    /// The packet is for the router, and its receiver is a container of this host on another VLAN, with this MAC. It
    /// goes to that VLAN's device as if the router had sent it.
    Shortcut { vid: Vid, mac: Mac },
    /// A clone takes the shortcut; the packet itself goes to the router as a probe, to see whether the router still
    /// forwards it.
    ShortcutAndProbe { vid: Vid, mac: Mac },
    /// The frame is for one macvlan or macvtap in the trunk's own namespace, and goes to that device at once.
    Deliver { ifindex: u32 },
    /// The frame ends here.
    Drop(Reason),
}

impl Verdict {
    /// Packs the verdict into one number, as a BPF function returns it: four bits of kind, then what the kind carries. A
    /// MAC has the low 48 bits and a VID the 12 above it; an ifindex or a [`Reason`] has the low bits. Passing is 0.
    #[inline(always)]
    pub const fn to_bits(self) -> u64 {
        match self {
            Self::Pass => 0,
            Self::Conflict => kind(1),
            Self::Hairpin => kind(2),
            Self::Steer { mac } => kind(3) | mac.to_bits(),
            Self::Reflect { mac } => kind(4) | mac.to_bits(),
            Self::CloneToLocal { mac } => kind(5) | mac.to_bits(),
            Self::Shortcut { vid, mac } => kind(6) | vid_bits(vid) | mac.to_bits(),
            Self::ShortcutAndProbe { vid, mac } => kind(7) | vid_bits(vid) | mac.to_bits(),
            Self::Deliver { ifindex } => kind(8) | ifindex as u64,
            Self::Drop(reason) => kind(9) | reason as u64,
        }
    }

    /// Unpacks what [`to_bits`](Self::to_bits) made. A number that no verdict has is [`Verdict::Pass`].
    #[inline(always)]
    pub const fn from_bits(bits: u64) -> Self {
        let mac = Mac::from_bits(bits);
        let vid = Vid::new((bits >> 48) as u16);
        match bits >> 60 {
            1 => Self::Conflict,
            2 => Self::Hairpin,
            3 => Self::Steer { mac },
            4 => Self::Reflect { mac },
            5 => Self::CloneToLocal { mac },
            6 => Self::Shortcut { vid, mac },
            7 => Self::ShortcutAndProbe { vid, mac },
            8 => Self::Deliver {
                ifindex: bits as u32,
            },
            9 => match Reason::from_number(bits as u32) {
                Some(reason) => Self::Drop(reason),
                None => Self::Pass,
            },
            _ => Self::Pass,
        }
    }
}

#[inline(always)]
const fn kind(number: u64) -> u64 {
    number << 60
}

#[inline(always)]
const fn vid_bits(vid: Vid) -> u64 {
    (vid.get() as u64) << 48
}

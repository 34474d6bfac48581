//! What the loader leaves for whoever comes after it. The map is pinned, so it outlives a `kill -9`.

/// The single value of the array `SETTINGS`: 8 bytes, host byte order.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// An [`IngressReason`].
    pub ingress_reason: u32,
    /// 1 where the clsact qdisc is ours to remove.
    pub made_clsact: u32,
}

const _: () = assert!(size_of::<Settings>() == 8);

// SAFETY: `repr(C)`, two `u32`s, so no padding and every bit pattern is valid.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Settings {}

/// Why ingress is read where it is, and not at the other hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum IngressReason {
    /// The user said so.
    Asked = 0,
    /// A NIC with native XDP that leaves the tags in the bytes: XDP is the shortest way.
    Suitable = 1,
    /// veth, tun, bond and the like: XDP costs more there than it saves.
    SoftwareDevice = 2,
    /// The NIC takes the tag out before XDP sees the frame.
    StripsTags = 3,
    /// The driver has no native XDP, or refuses it as things are.
    NoNativeXdp = 4,
    /// The hook belongs to someone else.
    ForeignXdp = 5,
}

impl IngressReason {
    /// Reads the map's number; `None` for one that this version does not know.
    pub const fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::Asked,
            1 => Self::Suitable,
            2 => Self::SoftwareDevice,
            3 => Self::StripsTags,
            4 => Self::NoNativeXdp,
            5 => Self::ForeignXdp,
            _ => return None,
        })
    }
}

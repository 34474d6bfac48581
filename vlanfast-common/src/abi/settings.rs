//! The map `SETTINGS`: what the loader tells the programs, and the next loader. It is pinned, so it outlives a `kill -9`.

use bytemuck::{Pod, Zeroable};

use super::policy::Policy;

/// Changes whenever the meaning of a map that outlives the process (`COUNTERS`, `SETTINGS`) does.
///
/// A map of another layout is never read: it is made anew.
pub const LAYOUT: u32 = if cfg!(feature = "next-layout") { 5 } else { 4 };

/// The single value of the array `SETTINGS`: 64 bytes, host byte order.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Settings {
    /// Until when the tables are trusted, in nanoseconds of CLOCK_MONOTONIC. The loader moves it forward every second.
    /// When it is past, the programs fail open: every frame is passed.
    pub heartbeat: u64,
    /// [`LAYOUT`] of the loader that wrote it.
    pub layout: u32,
    /// The trunk's ifindex, which stays when the trunk is renamed.
    pub ifindex: u32,
    /// An [`IngressReason`].
    pub ingress_reason: u32,
    /// 1 where the clsact qdisc is ours to remove.
    pub made_clsact: u32,
    /// 1 where `rx-vlan-offload` was on before we turned it off.
    pub managed_offload: u32,
    /// What the tables lack: the bits below.
    pub incomplete: u32,
    /// The [`Policy`] that the programs were loaded with, for `status`.
    pub policy: Policy,
}

impl Settings {
    /// An endpoint may be missing from `ENDPOINTS`.
    pub const ENDPOINTS: u32 = 1;
    /// An address may be missing from `NEIGHBORS`.
    pub const NEIGHBORS: u32 = 2;
    /// Something has changed, and the tables follow within milliseconds. Until then nothing is shed.
    pub const CHANGING: u32 = 4;
    /// Someone receives tagged frames of VLANs that the tables do not have: the trunk has flags of
    /// [`Parent::TAGGED`](crate::Parent::TAGGED).
    pub const VLANS: u32 = 8;
}

const _: () = assert!(size_of::<Settings>() == 64);

/// Why ingress is read at its hook, and not at the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum IngressReason {
    /// The user said so.
    Asked = 0,
    /// The NIC has native XDP and leaves the tags in the bytes, so XDP costs least.
    Suitable = 1,
    /// On veth, tun, bond and the like, XDP costs more than it saves.
    SoftwareDevice = 2,
    /// The NIC takes the tag out before XDP sees the frame.
    StripsTags = 3,
    /// The driver has no native XDP, or refuses it as things are.
    NoNativeXdp = 4,
    /// Another program is attached to the XDP hook.
    ForeignXdp = 5,
    /// The NIC takes the tag out, and its driver refuses to switch that off.
    KeepsOffload = 6,
    /// The NIC merges packets before the kernel sees them, and would have to stop that for XDP.
    CostsOffloads = 7,
}

impl IngressReason {
    /// Reads the number in the map; `None` for one that this version does not know.
    pub const fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::Asked,
            1 => Self::Suitable,
            2 => Self::SoftwareDevice,
            3 => Self::StripsTags,
            4 => Self::NoNativeXdp,
            5 => Self::ForeignXdp,
            6 => Self::KeepsOffload,
            7 => Self::CostsOffloads,
            _ => return None,
        })
    }

    /// The word in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Suitable => "suitable",
            Self::SoftwareDevice => "software-device",
            Self::StripsTags => "strips-tags",
            Self::NoNativeXdp => "no-native-xdp",
            Self::ForeignXdp => "foreign-xdp",
            Self::KeepsOffload => "keeps-offload",
            Self::CostsOffloads => "costs-offloads",
        }
    }
}

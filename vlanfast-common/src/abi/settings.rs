//! What the loader leaves for the datapath and for whoever comes after it. Both maps are pinned, so
//! they outlive a `kill -9`, and both keep their size and the places of their fields in every layout:
//! what is new takes the place of `reserved`.

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
    /// Until when the tables count as true, in nanoseconds of CLOCK_MONOTONIC. The loader moves it
    /// forward every second; past it, every frame is passed.
    pub heartbeat: u64,
    /// [`LAYOUT`] of the loader that wrote it.
    pub layout: u32,
    /// The trunk, whatever its name is by now.
    pub ifindex: u32,
    /// An [`IngressReason`].
    pub ingress_reason: u32,
    /// 1 where the clsact qdisc is ours to remove.
    pub made_clsact: u32,
    /// 1 where `rx-vlan-offload` was on before we turned it off.
    pub managed_offload: u32,
    /// What the tables lack, by the bits below.
    pub incomplete: u32,
    /// The [`Policy`] that the programs were loaded with, for `status`.
    pub policy: Policy,
}

impl Settings {
    /// A receiver may be missing from `ENDPOINTS`.
    pub const ENDPOINTS: u32 = 1;
    /// An address may be missing from `NEIGHBORS`.
    pub const NEIGHBORS: u32 = 2;
    /// Something has changed, and the tables follow within milliseconds: until then nothing is shed.
    pub const CHANGING: u32 = 4;
    /// Someone takes tagged frames, and nobody knows of which VLANs: what the trunk has by
    /// [`Parent::TAGGED`](crate::Parent::TAGGED).
    pub const VLANS: u32 = 8;
}

const _: () = assert!(size_of::<Settings>() == 64);

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
    /// The NIC takes the tag out, and its driver refuses to leave it there.
    KeepsOffload = 6,
    /// The NIC merges packets before anything sees them, and can't do so for XDP.
    CostsOffloads = 7,
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

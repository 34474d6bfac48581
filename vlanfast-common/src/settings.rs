//! What the loader leaves for the datapath and for whoever comes after it. Both maps are pinned, so
//! they outlive a `kill -9`, and both keep their size and the places of their fields in every layout:
//! what is new takes the place of `reserved`.

/// The single value of the array `SETTINGS`: 64 bytes, host byte order.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Until when the tables count as true, in nanoseconds of CLOCK_MONOTONIC. The loader moves it
    /// forward every second; past it, every frame is passed.
    pub heartbeat: u64,
    /// [`LAYOUT`](crate::LAYOUT) of the loader that wrote it.
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
    /// The [`Policy`](crate::Policy) that the programs were loaded with, for `status`.
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

/// What is switched on. 32 bytes, host byte order.
///
/// Constant for a loaded program, which has no code for what is off.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// 1: group frames with one known receiver go to that alone.
    pub steer: u16,
    /// 1: decide and count, and change no packet.
    pub dry_run: u16,
    /// How many requests/s for an address, which go to everyone, a VLAN takes; 0 is no limit.
    pub storm_limit: u32,
    /// A [`Shed`].
    pub shed: u32,
    /// How many other group frames/s a VLAN takes; 0 is no limit.
    pub group_limit: u32,
    /// 1: there are VLANs with [`Parent::HOST_ACCESS`](crate::Parent::HOST_ACCESS), or may be.
    pub host_access: u32,
    /// A [`Shortcut`].
    pub shortcut: u32,
    /// Every so many seconds a flow asks the router again; 0 is never.
    pub shortcut_refresh: u32,
    /// 1: unicast for a receiver in the trunk's own namespace goes to its device at once.
    pub deliver: u32,
}

impl Policy {
    /// How unicast reaches its receiver: the word on the command line and in `status`.
    pub const fn deliver_name(&self) -> &'static str {
        match self.deliver {
            0 => "kernel",
            _ => "redirect",
        }
    }
}

/// Which frames are dropped because nobody here takes them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Shed {
    #[default]
    Off = 0,
    /// Those of VLANs for which the host has no device.
    Vlan = 1,
    /// And unicast for MACs that no receiver of the VLAN has.
    Mac = 2,
}

impl Shed {
    /// Reads the number of a [`Policy`]; one that this version does not know is off.
    #[inline(always)]
    pub const fn from_number(number: u32) -> Self {
        match number {
            1 => Self::Vlan,
            2 => Self::Mac,
            _ => Self::Off,
        }
    }

    /// The word on the command line and in `status`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Vlan => "vlan",
            Self::Mac => "mac",
        }
    }
}

/// Which packets between VLANs of this host do without the router.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
pub enum Shortcut {
    #[default]
    Off = 0,
    /// Those that the administrator says: what is in `ROUTES`.
    Allow = 1,
    /// Those that the router has been seen to send on.
    Learned = 2,
}

impl Shortcut {
    /// Reads the number of a [`Policy`]; one that this version does not know is off.
    pub const fn from_number(number: u32) -> Self {
        match number {
            1 => Self::Allow,
            2 => Self::Learned,
            _ => Self::Off,
        }
    }

    /// The word on the command line and in `status`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Allow => "allow",
            Self::Learned => "learned",
        }
    }
}

const _: () = assert!(size_of::<Policy>() == 32);

/// The single value of the array `STATUS`: what the loader knows and the tables do not show. 64 bytes,
/// host byte order. The datapath does not read it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// By [`Source`].
    pub sources: [SourceStatus; 2],
    /// Endpoints that found no room in the map; their frames take the kernel's own path.
    pub endpoints_left_out: u32,
    /// Addresses that found no room in the map.
    pub neighbors_left_out: u32,
    /// 802.1ad devices on the trunk: their VIDs are another number space.
    pub service_parents: u32,
    /// macvlans on devices that the trunk carries in more than one tag.
    pub stacked: u32,
    /// Routes that found no room in the map.
    pub routes_left_out: u32,
    /// Endpoints and addresses that are left out because their owners have more than their share, and the namespace
    /// with most of them, as [`Endpoint::nsid`](crate::Endpoint::nsid) has it.
    pub endpoints_over: u32,
    pub addresses_over: u32,
    pub most_over: i32,
}

/// What one source of state is up to. 16 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceStatus {
    /// When it last answered in full, to whatever it was asked, in seconds since 1970; 0 for never.
    pub last_success: u64,
    /// A [`SourceState`].
    pub state: u32,
    pub reserved: u32,
}

const _: () = assert!(size_of::<Status>() == 64);

/// Where state comes from; the number is the place in [`Status::sources`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Netlink = 0,
    Docker = 1,
}

impl Source {
    pub const ALL: [Self; 2] = [Self::Netlink, Self::Docker];

    /// The name in `status` and in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Netlink => "netlink",
            Self::Docker => "docker",
        }
    }
}

/// How a source does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
pub enum SourceState {
    /// Switched off.
    #[default]
    Off = 0,
    /// Not read yet.
    Starting = 1,
    Ok = 2,
    /// There is nobody to ask: no socket.
    Absent = 3,
    NotPermitted = 4,
    /// It does not answer, or with an error; it is asked again.
    Unreachable = 5,
}

impl SourceState {
    /// Reads the map's number; `None` for one that this version does not know.
    pub const fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::Off,
            1 => Self::Starting,
            2 => Self::Ok,
            3 => Self::Absent,
            4 => Self::NotPermitted,
            5 => Self::Unreachable,
            _ => return None,
        })
    }

    /// The word in `status` and in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Starting => "starting",
            Self::Ok => "ok",
            Self::Absent => "absent",
            Self::NotPermitted => "not permitted",
            Self::Unreachable => "unreachable",
        }
    }
}

#[cfg(feature = "user")]
mod pod {
    use super::{Policy, Settings, Status};

    // SAFETY: `repr(C)`, integers alone, and the sizes above leave no room for padding.
    unsafe impl aya::Pod for Settings {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Status {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Policy {}
}

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

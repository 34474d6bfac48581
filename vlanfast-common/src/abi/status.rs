//! The map `STATUS`: the loader's own report for `vlanfast status`, which needs no process to talk to.

use bytemuck::{Pod, Zeroable};

/// The single value of the array `STATUS`: what the loader knows and the tables do not show. It has 64 bytes in host byte
/// order. The programs do not read it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Status {
    /// The state of each source, by [`Source`].
    pub sources: [SourceStatus; 2],
    /// Endpoints that found no room in the map; their frames take the kernel's own path.
    pub endpoints_left_out: u32,
    /// Addresses that found no room in the map.
    pub neighbors_left_out: u32,
    /// 802.1ad devices on the trunk, whose VIDs are another number space.
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

/// How one source of state does. 16 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct SourceStatus {
    /// When it last gave a whole answer, in seconds since 1970; 0 for never.
    pub last_success: u64,
    /// A [`SourceState`].
    pub state: u32,
    pub reserved: u32,
}

const _: () = assert!(size_of::<Status>() == 64);

/// Where state comes from. The number is the place in [`Status::sources`].
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
    /// There is no socket to ask at.
    Absent = 3,
    NotPermitted = 4,
    /// It does not answer, or answers with an error. It is asked again.
    Unreachable = 5,
}

impl SourceState {
    /// Reads the number in the map; `None` for one that this version does not know.
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

//! Which features are on: what the command line says, as the programs read it.

use bytemuck::{Pod, Zeroable};

/// Which features are on. 32 bytes, host byte order.
///
/// It is constant in a loaded program, and the verifier removes the code of what is off.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Policy {
    /// 1: a group frame that asks for one endpoint goes to that endpoint alone.
    pub steer: u16,
    /// 1: decisions are counted, and no packet is changed.
    pub dry_run: u16,
    /// The limit of a VLAN for ARP and ND requests that go to everyone, in frames/s; 0 is no limit.
    pub storm_limit: u32,
    /// A [`Shed`].
    pub shed: u32,
    /// The limit of a VLAN for all other group frames that go to everyone, in frames/s; 0 is no limit.
    pub group_limit: u32,
    /// 1: VLANs may have [`Parent::HOST_ACCESS`](crate::Parent::HOST_ACCESS).
    pub host_access: u32,
    /// A [`Shortcut`].
    pub shortcut: u32,
    /// After how many seconds a flow probes its router again; 0 is never.
    pub shortcut_refresh: u32,
    /// 1: unicast for an endpoint in the trunk's own namespace is redirected to its device.
    pub deliver: u32,
}

impl Policy {
    /// Nothing is switched on.
    pub const OFF: Self = Self {
        steer: 0,
        dry_run: 0,
        storm_limit: 0,
        shed: 0,
        group_limit: 0,
        host_access: 0,
        shortcut: 0,
        shortcut_refresh: 0,
        deliver: 0,
    };

    /// How unicast reaches its endpoint: the word on the command line and in `status`.
    pub const fn deliver_name(&self) -> &'static str {
        match self.deliver {
            0 => "kernel",
            _ => "redirect",
        }
    }
}

/// Which frames are dropped because no endpoint of this host receives them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Shed {
    #[default]
    Off = 0,
    /// Frames of VLANs for which the host has no device.
    Vlan = 1,
    /// In addition, unicast for MACs that no endpoint of the VLAN has.
    Mac = 2,
}

impl Shed {
    /// Reads the number in a [`Policy`]. A number that this version does not know is off.
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

/// Which packets between VLANs of this host bypass the router.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
pub enum Shortcut {
    #[default]
    Off = 0,
    /// The packets that the administrator allows: their addresses are in `ROUTES`.
    Allow = 1,
    /// The packets of flows that the router was seen to forward.
    Learned = 2,
}

impl Shortcut {
    /// Reads the number in a [`Policy`]. A number that this version does not know is off.
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

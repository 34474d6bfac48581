//! Which features are on: what the command line says, as the programs read it.

use bytemuck::{Pod, Zeroable};

/// What is switched on. 32 bytes, host byte order.
///
/// Constant for a loaded program, which has no code for what is off.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
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

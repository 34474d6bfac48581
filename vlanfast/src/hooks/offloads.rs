//! The offload `rx-vlan-offload`: read, turned off for XDP, and turned on again.

use std::io;

use anyhow::Context;

use crate::{hooks::ethtool::call, state::name::Name};

/// `ETHTOOL_GFLAGS`, `ETHTOOL_SFLAGS` and `ETH_FLAG_RXVLAN` of `include/uapi/linux/ethtool.h`.
const GET_FLAGS: u32 = 0x25;
const SET_FLAGS: u32 = 0x26;
const RX_VLAN: u32 = 1 << 8;

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// Whether the device strips VLAN tags from received frames (`rx-vlan-offload`).
pub fn strips_tags(name: &Name) -> io::Result<bool> {
    match flags(name) {
        // A driver without ethtool operations has no such offload.
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(false),
        flags => Ok(flags? & RX_VLAN != 0),
    }
}

/// Turns `rx-vlan-offload` on or off, and returns whether that changed anything.
pub fn set_strips_tags(name: &Name, strips: bool) -> io::Result<bool> {
    let old = flags(name)?;
    let new = if strips {
        old | RX_VLAN
    } else {
        old & !RX_VLAN
    };
    if new == old {
        return Ok(false);
    }
    ethtool_value(name, SET_FLAGS, new)?;
    // The call succeeds even if the driver cannot change the flag (`__netdev_update_features`).
    match flags(name)? & RX_VLAN == new & RX_VLAN {
        true => Ok(true),
        false => Err(io::Error::other("the driver did not change it")),
    }
}

/// Turns `rx-vlan-offload` on again.
pub fn restore_offload(device: &Name) -> anyhow::Result<()> {
    set_strips_tags(device, true).map(drop).with_context(|| {
        format!(
            "failed to turn rx-vlan-offload of {device} on again; run `ethtool -K {device} rxvlan on`"
        )
    })
}

fn flags(name: &Name) -> io::Result<u32> {
    ethtool_value(name, GET_FLAGS, 0)
}

/// Runs a command that passes a number to the driver and returns one.
fn ethtool_value(name: &Name, command: u32, data: u32) -> io::Result<u32> {
    let mut value = Value { command, data };
    // SAFETY: both commands read and write this one structure.
    unsafe { call(name, (&raw mut value).cast()) }?;
    Ok(value.data)
}

//! Offloads of a device, by the ioctl that every kernel answers (`SIOCETHTOOL`).

mod features;

use std::{io, os::fd::AsRawFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

pub use crate::hooks::offloads::features::merging;
use crate::{state::name::Name, stop};

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

/// Whether the device takes VLAN tags out of the bytes (`rx-vlan-offload`).
pub fn strips_tags(name: &Name) -> io::Result<bool> {
    match flags(name) {
        // No ethtool operations at all: nothing that could strip.
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(false),
        flags => Ok(flags? & RX_VLAN != 0),
    }
}

/// Has the device take VLAN tags out of the bytes, or leave them there; says whether that is new.
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
    ask(name, SET_FLAGS, new)?;
    // That a driver can't as things are does not make the call fail (`__netdev_update_features`).
    match flags(name)? & RX_VLAN == new & RX_VLAN {
        true => Ok(true),
        false => Err(io::Error::other("the driver keeps it as it is")),
    }
}

fn flags(name: &Name) -> io::Result<u32> {
    ask(name, GET_FLAGS, 0)
}

/// Asks a driver for a number, or tells it one.
fn ask(name: &Name, command: u32, data: u32) -> io::Result<u32> {
    let mut value = Value { command, data };
    // SAFETY: both commands read and write this one structure.
    unsafe { call(name, (&raw mut value).cast()) }?;
    Ok(value.data)
}

/// Has a command carried out.
///
/// # Safety
///
/// The command that `at` begins with must fit what is there.
unsafe fn call(name: &Name, at: *mut libc::c_char) -> io::Result<()> {
    // SAFETY: all zeroes is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let name = name.as_bytes();
    if name.len() >= request.ifr_name.len() {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name) {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = at;
    let socket = socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    // SAFETY: the request names a device, and the caller answers for what it points to.
    let asked = stop::in_kernel(|| unsafe {
        libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request)
    });
    match asked {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

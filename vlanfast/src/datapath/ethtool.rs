//! Two questions to a driver, by the ioctl that every kernel answers (`SIOCETHTOOL`).

use std::{io, os::fd::AsRawFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// `ETHTOOL_GFLAGS` and `ETH_FLAG_RXVLAN` of `include/uapi/linux/ethtool.h`.
const GET_FLAGS: u32 = 0x25;
const RX_VLAN: u32 = 1 << 8;

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// Whether the device takes VLAN tags out of the bytes (`rx-vlan-offload`).
pub fn strips_tags(name: &str) -> io::Result<bool> {
    let mut value = Value {
        command: GET_FLAGS,
        data: 0,
    };
    // SAFETY: all zeroes is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    let socket = socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    // SAFETY: the request names a device and points to a value of the size that the command has.
    match unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) } {
        0 => Ok(value.data & RX_VLAN != 0),
        _ => match io::Error::last_os_error() {
            // No ethtool operations at all: nothing that could strip.
            error if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(false),
            error => Err(error),
        },
    }
}

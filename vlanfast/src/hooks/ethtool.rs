//! The ethtool ioctl (`SIOCETHTOOL`), which every kernel has.

use std::{io, os::fd::AsRawFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::{state::name::Name, stop};

/// Runs an ethtool command on a device.
///
/// # Safety
///
/// `data` must point to the structure that the command in its first word reads and writes.
pub unsafe fn call(name: &Name, data: *mut libc::c_char) -> io::Result<()> {
    // SAFETY: all zeroes is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let name = name.as_bytes();
    if name.len() >= request.ifr_name.len() {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name) {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = data;
    let socket = socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    // SAFETY: the request names a device, and the caller guarantees what its pointer leads to.
    let result = stop::in_kernel(|| unsafe {
        libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request)
    });
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

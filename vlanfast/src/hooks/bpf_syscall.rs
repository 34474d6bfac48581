//! The commands of bpf(2) that aya lacks, or offers only by the name of a device. Here a device is given by its index.

use std::{
    ffi::CString,
    fs, io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    path::Path,
};

use aya::programs::loaded_programs;
use vlanfast_common::Direction;

use crate::stop;

/// `enum bpf_cmd` of the kernel's `include/uapi/linux/bpf.h`.
const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_PROG_QUERY: libc::c_long = 16;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_LINK_UPDATE: libc::c_long = 29;
const BPF_LINK_DETACH: libc::c_long = 34;

/// `enum bpf_attach_type` of the same file.
const BPF_XDP: u32 = 37;
const BPF_TCX_INGRESS: u32 = 46;
const BPF_TCX_EGRESS: u32 = 47;

/// First or last of the programs at a hook (`include/uapi/linux/bpf.h`).
const BPF_F_BEFORE: u32 = 1 << 3;
const BPF_F_AFTER: u32 = 1 << 4;
/// `include/uapi/linux/if_link.h`.
const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

/// The loopback device has this index in every namespace (`loopback_net_init`).
const LOOPBACK: u32 = 1;

/// Where a link attaches a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachPoint {
    /// As the first of the tcx programs at a hook.
    TcxFirst(Direction),
    /// As the last of the tcx programs at a hook.
    TcxLast(Direction),
    XdpNative,
    XdpGeneric,
}

/// The part of `union bpf_attr` that BPF_LINK_CREATE reads. The rest is zero and may be left out.
#[repr(C)]
struct LinkCreate {
    program: u32,
    ifindex: u32,
    attach_type: u32,
    flags: u32,
}

/// Attaches a program to a device for as long as the link is held or pinned.
pub fn create_link(
    program: BorrowedFd<'_>,
    ifindex: u32,
    point: AttachPoint,
) -> io::Result<OwnedFd> {
    let (attach_type, flags) = match point {
        AttachPoint::TcxFirst(hook) => (tcx_type(hook), BPF_F_BEFORE),
        AttachPoint::TcxLast(hook) => (tcx_type(hook), BPF_F_AFTER),
        AttachPoint::XdpNative => (BPF_XDP, XDP_FLAGS_DRV_MODE),
        AttachPoint::XdpGeneric => (BPF_XDP, XDP_FLAGS_SKB_MODE),
    };
    let mut attributes = LinkCreate {
        program: program.as_raw_fd() as u32,
        ifindex,
        attach_type,
        flags,
    };
    let fd = bpf(BPF_LINK_CREATE, &mut attributes)?;
    // SAFETY: BPF_LINK_CREATE returned this descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Replaces the program that a link attaches.
pub fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let fds = [link, program].map(|fd| fd.as_raw_fd() as u32);
    // The third and fourth words are the flags and the old program, which is not checked.
    bpf(BPF_LINK_UPDATE, &mut [fds[0], fds[1], 0, 0]).map(drop)
}

/// Detaches a link at once. Closing or unpinning it would detach it only after an RCU grace period.
pub fn detach_link(link: BorrowedFd<'_>) -> io::Result<()> {
    bpf(BPF_LINK_DETACH, &mut [link.as_raw_fd() as u64, 0]).map(drop)
}

/// Opens a pinned object.
pub fn open(pin: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(pin.as_os_str().as_encoded_bytes())?;
    let fd = bpf(BPF_OBJ_GET, &mut [path.as_ptr() as u64, 0])?;
    // SAFETY: BPF_OBJ_GET returned this descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The index of the device that a pinned link is attached to, in that device's network namespace. 0 means that the
/// device was removed, `None` that the kernel does not say.
pub fn link_device(pin: &Path) -> io::Result<Option<u32>> {
    let link = open(pin)?;
    let said = fs::read_to_string(format!("/proc/self/fdinfo/{}", link.as_raw_fd()))?;
    let index = said.lines().find_map(|line| line.strip_prefix("ifindex:"));
    Ok(index.and_then(|index| index.trim().parse().ok()))
}

/// Pins a program, a link or a map.
pub fn pin(object: &impl AsFd, pin: &Path) -> io::Result<()> {
    let path = CString::new(pin.as_os_str().as_encoded_bytes())?;
    let fd = object.as_fd().as_raw_fd() as u64;
    bpf(BPF_OBJ_PIN, &mut [path.as_ptr() as u64, fd]).map(drop)
}

/// The part of `union bpf_attr` that BPF_PROG_QUERY uses.
#[repr(C)]
#[derive(Default)]
struct Query {
    ifindex: u32,
    attach_type: u32,
    flags: [u32; 2],
    program_ids: u64,
    count: u32,
    /// Unused here, but the kernel writes to it.
    rest: [u32; 9],
}

const _: () = assert!(size_of::<Query>() == 64);

/// Whether TC programs attach as tcx links (Linux 6.6, commit e420bed02507). The kernel is asked for the attach type,
/// because distributions bring features to kernels with older version numbers.
pub fn has_tcx() -> bool {
    let asked = tcx_programs(LOOPBACK, Direction::Rx);
    // Any other error says nothing about the attach type.
    !asked.is_err_and(|error| error.raw_os_error() == Some(libc::EINVAL))
}

/// The ids of the tcx programs at a hook, in the order in which they run. aya would also open each program, and
/// opening a program by its id needs CAP_SYS_ADMIN.
pub fn tcx_programs(ifindex: u32, hook: Direction) -> io::Result<Vec<u32>> {
    let mut ids = vec![0u32; 16];
    loop {
        let mut query = Query {
            ifindex,
            attach_type: tcx_type(hook),
            program_ids: ids.as_mut_ptr() as u64,
            count: ids.len() as u32,
            ..Query::default()
        };
        let result = bpf(BPF_PROG_QUERY, &mut query);
        let count = query.count as usize;
        match result.map_err(|error| (error.raw_os_error(), error)) {
            Ok(_) => {
                ids.truncate(count);
                return Ok(ids);
            }
            // By the next query there may be even more.
            Err((Some(libc::ENOSPC), _)) => ids.resize(2 * count, 0),
            // The first kernels with tcx return this for a hook without programs.
            Err((Some(libc::ENOENT), _)) => return Ok(vec![]),
            Err((_, error)) => return Err(error),
        }
    }
}

const fn tcx_type(hook: Direction) -> u32 {
    match hook {
        Direction::Rx => BPF_TCX_INGRESS,
        Direction::Tx => BPF_TCX_EGRESS,
    }
}

/// A program in words: `tcx program 'name' (id 7)`. Without CAP_SYS_ADMIN, which opening a program by its id needs,
/// only the id is known.
pub fn describe(what: &str, id: u32) -> String {
    match program_name(id) {
        Some(name) => format!("{what} '{name}' (id {id})"),
        None => format!("{what} {id}"),
    }
}

/// The name of a loaded program; `None` if it has none or we may not read it.
pub fn program_name(id: u32) -> Option<String> {
    let mut programs = loaded_programs().flatten();
    let program = programs.find(|program| program.id() == id)?;
    let name = program.name_as_str().filter(|name| !name.is_empty());
    name.map(str::to_owned)
}

/// Whether this kernel has bpf(2) and we may call it.
pub fn exists() -> bool {
    // The command does not exist: a kernel with bpf(2) returns EINVAL or EPERM, one without it ENOSYS.
    let error = bpf(-1, &mut [0u64; 2]).err();
    error.and_then(|error| error.raw_os_error()) != Some(libc::ENOSYS)
}

/// Calls bpf(2) with the part of `union bpf_attr` that the command uses.
fn bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: the kernel reads and writes no more bytes than the size it is given.
    let result = stop::in_kernel(|| unsafe {
        libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size_of::<T>())
    });
    match result {
        0.. => Ok(result as i32),
        _ => Err(io::Error::last_os_error()),
    }
}

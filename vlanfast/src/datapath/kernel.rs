//! Whether this process and this kernel can do what vlanfast needs, and what of bpf(2) aya lacks.

use std::{
    ffi::CString,
    fs, io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::Path,
};

use anyhow::Context;
use caps::{CapSet, Capability};
use nix::sys::{
    statfs::{BPF_FS_MAGIC, statfs},
    utsname::uname,
};

use vlanfast_common::Direction;

use super::pins::BPFFS;
use crate::error::Error;

/// The oldest kernel that has every helper we call: `bpf_xdp_load_bytes`. tcx came with 6.6; before, TC means
/// clsact.
const OLDEST: (u32, u32) = (5, 18);

/// `enum bpf_cmd` of the kernel's `include/uapi/linux/bpf.h`.
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_PROG_QUERY: libc::c_long = 16;
const BPF_LINK_DETACH: libc::c_long = 34;

/// `enum bpf_attach_type` of the same file.
const BPF_TCX_INGRESS: u32 = 46;
const BPF_TCX_EGRESS: u32 = 47;

/// Fails with what is missing, before anything was changed.
pub fn check() -> anyhow::Result<()> {
    let release = uname().context("failed to ask for the kernel's version")?;
    let release = release.release().to_string_lossy();
    if version(&release) < OLDEST {
        return Err(lacks(
            format!("Linux {release} is too old"),
            "vlanfast needs 5.18 or newer",
        ));
    }
    // No such command: EINVAL or EPERM from a kernel that has the call, ENOSYS from one that hasn't.
    if let Err(error) = bpf(-1, &mut [0u64; 2])
        && error.raw_os_error() == Some(libc::ENOSYS)
    {
        return Err(lacks(
            "this kernel has no bpf(2)".into(),
            "use one built with CONFIG_BPF_SYSCALL, or allow the call in the container's seccomp profile",
        ));
    }
    permitted()?;
    match statfs(BPFFS) {
        Ok(fs) if fs.filesystem_type() == BPF_FS_MAGIC => Ok(()),
        _ => Err(lacks(
            format!("no BPF file system is mounted on {BPFFS}"),
            "run `mount -t bpf bpf /sys/fs/bpf`",
        )),
    }
}

/// Fails with the capabilities that are missing.
pub fn permitted() -> anyhow::Result<()> {
    let held = caps::read(None, CapSet::Effective).context("failed to read our capabilities")?;
    let all = held.contains(&Capability::CAP_SYS_ADMIN);
    let missing: Vec<String> = [
        (Capability::CAP_NET_ADMIN, false),
        (Capability::CAP_BPF, all),
        // The verifier lets only these compare packet pointers.
        (Capability::CAP_PERFMON, all),
        // Events of other namespaces go to these only: asked for when we begin to listen, and again
        // for each (`do_one_broadcast`).
        (Capability::CAP_NET_BROADCAST, false),
    ]
    .into_iter()
    .filter(|(capability, implied)| !implied && !held.contains(capability))
    .map(|(capability, _)| capability.to_string())
    .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let missing = missing.join(", ");
    Err(Error::NotPermitted { missing }.into())
}

/// Whether TC programs attach as tcx links (Linux 6.6, commit e420bed02507).
pub fn has_tcx() -> bool {
    uname().is_ok_and(|name| version(&name.release().to_string_lossy()) >= (6, 6))
}

/// Whether this is a realtime kernel (PREEMPT_RT), where from Linux 6.18 on one task may run in the middle of what
/// another does with softirqs off (`PREEMPT_RT_NEEDS_BH_LOCK` not set).
pub fn is_realtime() -> bool {
    fs::read_to_string("/sys/kernel/realtime").is_ok_and(|text| text.trim() == "1")
}

/// Takes a pinned link off its hook, now. Removing the pin alone would leave that to a grace period.
pub fn detach_link(pin: &Path) -> io::Result<()> {
    let path = CString::new(pin.as_os_str().as_encoded_bytes())?;
    let fd = bpf(BPF_OBJ_GET, &mut [path.as_ptr() as u64, 0])?;
    // SAFETY: BPF_OBJ_GET returned it, and nobody else has it.
    let link = unsafe { OwnedFd::from_raw_fd(fd) };
    bpf(BPF_LINK_DETACH, &mut [link.as_raw_fd() as u64, 0]).map(drop)
}

/// What BPF_PROG_QUERY has of `union bpf_attr`.
#[repr(C)]
#[derive(Default)]
struct Query {
    ifindex: u32,
    attach_type: u32,
    flags: [u32; 2],
    program_ids: u64,
    count: u32,
    /// Of no use here, but the kernel writes there.
    rest: [u32; 9],
}

const _: () = assert!(size_of::<Query>() == 64);

/// The ids of the tcx programs at a hook. aya opens each of them as well, and to open a program by its
/// id takes CAP_SYS_ADMIN.
pub fn tcx_programs(ifindex: u32, hook: Direction) -> io::Result<Vec<u32>> {
    let attach_type = match hook {
        Direction::Rx => BPF_TCX_INGRESS,
        Direction::Tx => BPF_TCX_EGRESS,
    };
    let mut ids = vec![0u32; 16];
    loop {
        let mut query = Query {
            ifindex,
            attach_type,
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
            // Still more may have come when it is asked again.
            Err((Some(libc::ENOSPC), _)) => ids.resize(2 * count, 0),
            // So say the first kernels with tcx of a hook without any.
            Err((Some(libc::ENOENT), _)) => return Ok(vec![]),
            Err((_, error)) => return Err(error),
        }
    }
}

/// bpf(2), with what the command has of `union bpf_attr`.
fn bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: the kernel reads and writes no more than the size that is given.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size_of::<T>()) };
    match result {
        0.. => Ok(result as i32),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Major and minor number of a release like `6.12.117+deb12-cloud-amd64`.
fn version(release: &str) -> (u32, u32) {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn lacks(what: String, remedy: &'static str) -> anyhow::Error {
    Error::Kernel { what, remedy }.into()
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn releases_are_read_as_distributions_write_them() {
        assert_eq!(version("6.12.117+deb12-cloud-amd64"), (6, 12));
        assert_eq!(version("5.15.0-91-generic"), (5, 15));
        assert_eq!(version("6.1-rc3"), (6, 1));
        assert_eq!(version("strange"), (0, 0));
    }
}

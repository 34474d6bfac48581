//! Whether this process and this kernel can do what vlanfast needs, and two calls that aya lacks.

use std::{
    ffi::CString,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::Path,
};

use anyhow::Context;
use caps::{CapSet, Capability};
use nix::sys::{
    statfs::{BPF_FS_MAGIC, statfs},
    utsname::uname,
};

use super::pins::BPFFS;
use crate::error::Error;

/// The oldest kernel that we test for. tcx came with 6.6; before, TC means clsact.
const OLDEST: (u32, u32) = (5, 15);

/// `enum bpf_cmd` of the kernel's `include/uapi/linux/bpf.h`.
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_LINK_DETACH: libc::c_long = 34;

/// Fails with what is missing, before anything was changed.
pub fn check() -> anyhow::Result<()> {
    let release = uname().context("failed to ask for the kernel's version")?;
    let release = release.release().to_string_lossy();
    if version(&release) < OLDEST {
        return Err(lacks(
            format!("Linux {release} is too old"),
            "vlanfast needs 5.15 or newer",
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

/// Takes a pinned link off its hook, now. Removing the pin alone would leave that to a grace period.
pub fn detach_link(pin: &Path) -> io::Result<()> {
    let path = CString::new(pin.as_os_str().as_encoded_bytes())?;
    let fd = bpf(BPF_OBJ_GET, &mut [path.as_ptr() as u64, 0])?;
    // SAFETY: BPF_OBJ_GET returned it, and nobody else has it.
    let link = unsafe { OwnedFd::from_raw_fd(fd) };
    bpf(BPF_LINK_DETACH, &mut [link.as_raw_fd() as u64, 0]).map(drop)
}

/// bpf(2), with the first 16 bytes of `union bpf_attr`.
fn bpf(command: libc::c_long, attributes: &mut [u64; 2]) -> io::Result<i32> {
    // SAFETY: the kernel reads no more than the size that is given, and writes nothing for these.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            attributes.as_mut_ptr(),
            size_of_val(attributes),
        )
    };
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

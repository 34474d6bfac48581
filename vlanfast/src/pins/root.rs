//! The directory of all pins: `vlanfast/` in the BPF file system.

use std::fs;

use anyhow::Context;
use nix::{
    errno::Errno,
    sys::{
        stat::fstat,
        statfs::{BPF_FS_MAGIC, fstatfs},
    },
    unistd::geteuid,
};

use crate::{
    error::Error,
    pins::{dir::Dir, id::Entry},
};

/// The usual mount point of the BPF file system, and the same mount as process 1 sees it. `ip netns exec` hides the
/// first one, because it mounts a new `/sys`.
const BPFFS: &str = "/sys/fs/bpf";
const BPFFS_OF_INIT: &str = "/proc/1/root/sys/fs/bpf";

const NAME: &[u8] = b"vlanfast";

/// The directory of all pins.
#[derive(Clone, Debug)]
pub struct Root {
    pub(super) above: Dir,
    pub(super) dir: Dir,
}

impl Root {
    /// Opens the directory; `None` if nothing is pinned.
    pub fn open() -> anyhow::Result<Option<Self>> {
        Self::open_in(bpffs()?)
    }

    pub(super) fn open_in(above: Dir) -> anyhow::Result<Option<Self>> {
        let dir = above.open(NAME)?;
        Ok(dir.map(|dir| Self { above, dir }))
    }

    /// Opens the directory, and makes it if it does not exist.
    pub fn make() -> anyhow::Result<Self> {
        Self::make_in(bpffs()?)
    }

    pub(super) fn make_in(above: Dir) -> anyhow::Result<Self> {
        loop {
            above
                .make(NAME)
                .with_context(|| format!("failed to make {}", above.shown(NAME)))?;
            // Another process may have just removed the directory with the last pins in it.
            if let Some(root) = Self::open_in(above.clone())? {
                return Ok(root);
            }
        }
    }

    /// The directories of the trunks that `is_wanted` selects, with what their names say. A directory that can't be
    /// trusted is an error only if `is_meant` selects it; others are skipped.
    pub fn entries(
        &self,
        is_wanted: impl Fn(&Entry) -> bool,
        is_meant: impl Fn(&Entry) -> bool,
    ) -> anyhow::Result<Vec<(Entry, Dir)>> {
        let mut found = vec![];
        for file_name in self.dir.names()? {
            let entry = Entry::parse(&file_name);
            if !is_wanted(&entry) {
                continue;
            }
            match self.dir.open(&file_name) {
                Ok(Some(dir)) => found.push((entry, dir)),
                Ok(None) => {}
                Err(error) if is_meant(&entry) => return Err(error),
                Err(error) => log::debug!("{error:#}"),
            }
        }
        found.sort_by(|(one, _), (other, _)| one.name.cmp(&other.name));
        Ok(found)
    }

    /// Removes the directory if it is empty.
    pub(super) fn remove(&self) -> Result<(), Errno> {
        match self.above.remove(NAME) {
            // Another trunk is attached, or another process has removed the directory.
            Err(Errno::ENOTEMPTY | Errno::ENOENT) => Ok(()),
            removed => removed,
        }
    }
}

/// Opens the BPF file system. If there is none, the error says how to mount it.
pub fn bpffs() -> anyhow::Result<Dir> {
    match mounted(BPFFS) {
        Ok(Some(dir)) => return Ok(dir),
        Ok(None) => {}
        Err(Errno::EPERM) => {
            return Err(Error::Untrusted {
                directory: BPFFS.into(),
                why: "it belongs to another user".into(),
                remedy: "unmount it, and run `mount -t bpf -o mode=700 bpf /sys/fs/bpf`".into(),
            }
            .into());
        }
        Err(error) => return Err(error).with_context(|| format!("failed to open {BPFFS}")),
    }
    // This needs more rights than vlanfast needs otherwise, so failing is no error.
    if let Ok(Some(dir)) = mounted(BPFFS_OF_INIT) {
        return Ok(dir);
    }
    Err(Error::Kernel {
        what: format!("no BPF file system is mounted on {BPFFS}"),
        remedy: match has_other_mounts() {
            false => "run `mount -t bpf -o mode=700 bpf /sys/fs/bpf`",
            true => {
                "run `mount -t bpf -o mode=700 bpf /sys/fs/bpf` in the mount namespace of process 1, and enter the \
                 network namespace by `nsenter --net=/run/netns/NAME` instead of `ip netns exec NAME`, which hides \
                 that mount"
            }
        },
    }
    .into())
}

/// The BPF file system at a path; `None` if there is something else or nothing.
fn mounted(path: &str) -> Result<Option<Dir>, Errno> {
    let dir = match Dir::at(path) {
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => return Ok(None),
        dir => dir?,
    };
    let is_bpf = fstatfs(dir.fd())?.filesystem_type() == BPF_FS_MAGIC;
    // Any other owner could rename or remove what we make in it.
    let owner = fstat(dir.fd())?.st_uid;
    let is_ours = owner == 0 || owner == geteuid().as_raw();
    match (is_bpf, is_ours) {
        (true, true) => Ok(Some(dir)),
        (true, false) => Err(Errno::EPERM),
        (false, _) => Ok(None),
    }
}

/// Whether this process is in another mount namespace than process 1.
fn has_other_mounts() -> bool {
    let mounts = |process: &str| fs::read_link(format!("/proc/{process}/ns/mnt")).ok();
    mounts("1").is_some_and(|of_init| Some(of_init) != mounts("self"))
}

//! Where all pins are: `vlanfast/` in the BPF file system.

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
    pins::{Pins, dir::Dir, id::Entry},
};

/// Where the BPF file system is mounted; and where every other shell sees it, when this one has a `/sys` of its
/// own, as `ip netns exec` gives it.
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
    /// `None` where nothing is pinned.
    pub fn open() -> anyhow::Result<Option<Self>> {
        Self::open_in(bpffs()?)
    }

    pub(super) fn open_in(above: Dir) -> anyhow::Result<Option<Self>> {
        let dir = above.open(NAME)?;
        Ok(dir.map(|dir| Self { above, dir }))
    }

    pub fn make() -> anyhow::Result<Self> {
        Self::make_in(bpffs()?)
    }

    pub(super) fn make_in(above: Dir) -> anyhow::Result<Self> {
        loop {
            above
                .make(NAME)
                .with_context(|| format!("failed to make {}", above.shown(NAME)))?;
            // Who removed the last pins in it may just have removed it.
            if let Some(root) = Self::open_in(above.clone())? {
                return Ok(root);
            }
        }
    }

    /// The pins of those trunks, in the order of their names. What stands in the way of a trunk that is meant is an
    /// error; something else that is no directory of ours is in nobody's way.
    pub fn pins(
        &self,
        which: impl Fn(&Entry) -> bool,
        is_meant: impl Fn(&Entry) -> bool,
    ) -> anyhow::Result<Vec<Pins>> {
        let mut found = vec![];
        for file_name in self.dir.names()? {
            let entry = Entry::parse(&file_name);
            if !which(&entry) {
                continue;
            }
            match self.dir.open(&file_name) {
                Ok(Some(dir)) => found.push(Pins {
                    trunk: entry.name,
                    id: entry.id,
                    dir,
                    root: self.clone(),
                }),
                Ok(None) => {}
                Err(error) if is_meant(&entry) => return Err(error),
                Err(error) => log::debug!("{error:#}"),
            }
        }
        found.sort_by(|one, other| one.trunk.cmp(&other.trunk));
        Ok(found)
    }

    /// Removes the directory if nothing is in it.
    pub(super) fn remove(&self) -> Result<(), Errno> {
        match self.above.remove(NAME) {
            // Another trunk is attached, or somebody was faster.
            Err(Errno::ENOTEMPTY | Errno::ENOENT) => Ok(()),
            removed => removed,
        }
    }
}

/// The BPF file system, or what to do for one.
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
    // It takes more rights to look there than we need otherwise.
    if let Ok(Some(dir)) = mounted(BPFFS_OF_INIT) {
        return Ok(dir);
    }
    Err(Error::Kernel {
        what: format!("no BPF file system is mounted on {BPFFS}"),
        remedy: match has_other_mounts() {
            false => "run `mount -t bpf -o mode=700 bpf /sys/fs/bpf`",
            true => {
                "run `mount -t bpf -o mode=700 bpf /sys/fs/bpf` outside, in the mount namespace of process 1, and \
                 enter the network namespace by `nsenter --net=/run/netns/NAME` instead of `ip netns exec NAME`, \
                 which hides it"
            }
        },
    }
    .into())
}

/// The BPF file system at a path; `None` where there is something else, or nothing.
fn mounted(path: &str) -> Result<Option<Dir>, Errno> {
    let dir = match Dir::at(path) {
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => return Ok(None),
        dir => dir?,
    };
    let is_bpf = fstatfs(dir.fd())?.filesystem_type() == BPF_FS_MAGIC;
    // Another owner could move away what we make in it.
    let owner = fstat(dir.fd())?.st_uid;
    let is_ours = owner == 0 || owner == geteuid().as_raw();
    match (is_bpf, is_ours) {
        (true, true) => Ok(Some(dir)),
        (true, false) => Err(Errno::EPERM),
        (false, _) => Ok(None),
    }
}

/// Whether this process sees other mounts than process 1.
fn has_other_mounts() -> bool {
    let mounts = |process: &str| fs::read_link(format!("/proc/{process}/ns/mnt")).ok();
    mounts("1").is_some_and(|of_init| Some(of_init) != mounts("self"))
}

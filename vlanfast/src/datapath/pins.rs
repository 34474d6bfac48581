//! What outlives the process: `/sys/fs/bpf/vlanfast/<trunk>/`, and whose it is at the moment.
//!
//! A process that is attached holds a lock on the directory, so it is known to be alive without any
//! file of its own, and a `kill -9` leaves no wrong trace.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use nix::fcntl::{Flock, FlockArg};
use vlanfast_common::Direction;

pub const BPFFS: &str = "/sys/fs/bpf";
const ROOT: &str = "/sys/fs/bpf/vlanfast";

pub const COUNTERS: &str = "COUNTERS";
pub const SETTINGS: &str = "SETTINGS";
pub const STATUS: &str = "STATUS";
pub const VLANS: &str = "VLANS";
pub const ENDPOINTS: &str = "ENDPOINTS";
pub const NEIGHBORS: &str = "NEIGHBORS";

/// The maps that are pinned, in that order: who finds others without `SETTINGS` could not undo them.
pub const MAPS: [&str; 6] = [SETTINGS, COUNTERS, STATUS, VLANS, ENDPOINTS, NEIGHBORS];

/// The pins of one trunk.
#[derive(Clone, Debug)]
pub struct Pins {
    pub trunk: String,
    dir: PathBuf,
}

/// Held for as long as a process is attached, or detaches.
pub type Lock = Flock<File>;

impl Pins {
    /// The pins of a trunk, whether there are any or not.
    pub fn of(trunk: &str) -> Self {
        // bpffs reserves names with a dot; a colon is in no device's name.
        let dir = Path::new(ROOT).join(trunk.replace('.', ":"));
        Self {
            trunk: trunk.to_owned(),
            dir,
        }
    }

    /// Follows a trunk that was renamed. A lock stays: it is the directory's, not the name's.
    pub fn rename(&mut self, trunk: &str) -> anyhow::Result<()> {
        let new = Self::of(trunk);
        fs::rename(&self.dir, &new.dir).with_context(|| {
            format!(
                "failed to move the pins of {} to {}; if vlanfast was attached to another device of \
                 that name, run `vlanfast detach {trunk}`",
                self.trunk,
                new.dir.display()
            )
        })?;
        *self = new;
        Ok(())
    }

    /// Every trunk that has pins, in the order of their names.
    pub fn all() -> anyhow::Result<Vec<Self>> {
        let entries = match fs::read_dir(ROOT) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.with_context(|| format!("failed to read {ROOT}"))?,
        };
        let mut trunks: Vec<_> = entries
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().replace(':', "."))
            .collect();
        trunks.sort();
        Ok(trunks.iter().map(|trunk| Self::of(trunk)).collect())
    }

    pub fn exist(&self) -> bool {
        self.dir.exists()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Where the link of a hook is pinned.
    pub fn link(&self, hook: Direction) -> PathBuf {
        self.path(match hook {
            Direction::Rx => "ingress_link",
            Direction::Tx => "egress_link",
        })
    }

    /// Where the program of a hook is pinned.
    pub fn program(&self, hook: Direction) -> PathBuf {
        self.path(match hook {
            Direction::Rx => "ingress_program",
            Direction::Tx => "egress_program",
        })
    }

    /// Makes the directory and takes it, or says who has it.
    pub fn create(&self) -> anyhow::Result<Result<Lock, Holder>> {
        fs::create_dir_all(&self.dir)
            .with_context(|| format!("failed to make {}", self.dir.display()))?;
        self.lock()
    }

    /// Takes the directory, or says who has it.
    pub fn lock(&self) -> anyhow::Result<Result<Lock, Holder>> {
        let what = || format!("failed to lock {}", self.dir.display());
        let dir = File::open(&self.dir).with_context(what)?;
        match Flock::lock(dir, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Ok(lock)),
            Err((dir, nix::Error::EWOULDBLOCK)) => Ok(Err(Holder::of(&dir))),
            Err((_, error)) => Err(error).with_context(what),
        }
    }

    /// The process that is attached, if one is.
    pub fn holder(&self) -> Option<Holder> {
        self.lock().ok()?.err()
    }

    /// Waits until the directory is free or gone.
    pub async fn wait_until_free(&self, at_most: Duration) -> anyhow::Result<()> {
        let freed = async {
            while self.exist() && self.holder().is_some() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(at_most, freed).await.with_context(|| {
            format!(
                "the process that is attached to {} does not end",
                self.trunk
            )
        })
    }

    /// Removes every pin. What is attached by a link goes with it, if nothing else holds it.
    pub fn remove(&self) -> anyhow::Result<()> {
        let remove = || -> io::Result<()> {
            for entry in fs::read_dir(&self.dir)? {
                fs::remove_file(entry?.path())?;
            }
            fs::remove_dir(&self.dir)?;
            match fs::remove_dir(ROOT) {
                // Another trunk is attached.
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
                result => result,
            }
        };
        remove().with_context(|| format!("failed to remove {}", self.dir.display()))
    }
}

/// Where a pin stands until it takes the place of the one at `path`; or where a crash has left it.
pub fn next(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("next_{name}"))
}

/// Pins beside what is pinned at `path`, for [`commit`] to put it there.
pub fn stage<E>(path: &Path, pin: impl FnOnce(&Path) -> Result<(), E>) -> anyhow::Result<()>
where
    Result<(), E>: Context<(), E>,
{
    let next = next(path);
    let what = || format!("failed to pin {}", next.display());
    match fs::remove_file(&next) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        result => result.with_context(what)?,
    }
    pin(&next).with_context(what)
}

/// Replaces what is pinned at `path`, if anything is, with what was staged: there is no moment in
/// which nothing is there.
pub fn commit(path: &Path) -> anyhow::Result<()> {
    fs::rename(next(path), path).with_context(|| format!("failed to replace {}", path.display()))
}

/// The process that holds the lock.
#[derive(Clone, Copy, Debug)]
pub struct Holder {
    /// `None` where the kernel doesn't say: it is in another PID namespace.
    pub pid: Option<i32>,
}

impl Holder {
    /// Looks the lock up in `/proc/locks` (proc_locks(5)): `1: FLOCK ADVISORY WRITE pid maj:min:inode`.
    fn of(dir: &File) -> Self {
        let pid = || -> Option<i32> {
            let inode = dir.metadata().ok()?.ino().to_string();
            let locks = fs::read_to_string("/proc/locks").ok()?;
            locks.lines().find_map(|line| {
                let fields: Vec<_> = line.split_whitespace().collect();
                let ours = fields.get(1) == Some(&"FLOCK")
                    && fields.get(5)?.rsplit(':').next() == Some(inode.as_str());
                ours.then(|| fields.get(4)?.parse().ok()).flatten()
            })
        };
        Self {
            pid: pid().filter(|&pid| pid > 0),
        }
    }
}

//! What outlives the process: `/sys/fs/bpf/vlanfast/<trunk>/`, and whose it is at the moment.
//!
//! A process that is attached holds a lock on the directory, so it is known to be alive without any
//! file of its own, and a `kill -9` leaves no wrong trace.

use std::{
    fmt,
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process, thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use nix::{
    fcntl::{Flock, FlockArg},
    sys::stat::{major, minor},
};
use vlanfast_common::Direction;

use crate::error::Error;

pub const BPFFS: &str = "/sys/fs/bpf";
const ROOT: &str = "/sys/fs/bpf/vlanfast";

pub const COUNTERS: &str = "COUNTERS";
pub const SETTINGS: &str = "SETTINGS";
pub const STATUS: &str = "STATUS";
pub const VLANS: &str = "VLANS";
pub const ENDPOINTS: &str = "ENDPOINTS";
pub const NEIGHBORS: &str = "NEIGHBORS";
pub const ROUTES: &str = "ROUTES";
pub const FLOWS: &str = "FLOWS";
pub const PAIRS: &str = "PAIRS";

/// The maps that are pinned, in that order: who finds others without `SETTINGS` could not undo them.
pub const MAPS: [&str; 9] = [
    SETTINGS, COUNTERS, STATUS, VLANS, ENDPOINTS, NEIGHBORS, ROUTES, FLOWS, PAIRS,
];

/// How long a lock is tried for: those who only look hold a shared one for a moment.
const PATIENCE: Duration = Duration::from_millis(100);

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
        Self::under(Path::new(ROOT), trunk)
    }

    fn under(root: &Path, trunk: &str) -> Self {
        Self {
            trunk: trunk.to_owned(),
            // bpffs reserves names with a dot; a colon is in no device's name.
            dir: root.join(trunk.replace('.', ":")),
        }
    }

    /// The pins of another trunk.
    fn other(&self, trunk: &str) -> Self {
        Self::under(self.dir.parent().unwrap_or(Path::new(ROOT)), trunk)
    }

    /// Follows a trunk that was renamed. A lock stays: it is the directory's, not the name's.
    ///
    /// Pins that another device left under that name get ours instead: they are found by their device.
    /// Those that a process holds are for that process to move; until then it is
    /// [`Error::NameTaken`], and ours stand aside, as it may be our name that it waits for.
    pub fn rename(&mut self, trunk: &str) -> anyhow::Result<()> {
        let new = self.other(trunk);
        match new.try_lock(FlockArg::LockExclusiveNonblock)? {
            None => move_to(&self.dir, &new.dir)?,
            Some(Ok(_lock)) => {
                move_to(&new.dir, &new.aside())?;
                move_to(&self.dir, &new.dir)?;
                move_to(&new.aside(), &self.dir)?;
            }
            Some(Err(holder)) => {
                if self.dir != self.aside() {
                    move_to(&self.dir, &self.aside())?;
                    self.dir = self.aside();
                }
                return Err(Error::NameTaken {
                    trunk: trunk.to_owned(),
                    pid: holder.to_string(),
                }
                .into());
            }
        }
        *self = new;
        Ok(())
    }

    /// A name that no device has.
    fn aside(&self) -> PathBuf {
        self.other(&format!("{}..{}", self.trunk, process::id()))
            .dir
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
        loop {
            fs::create_dir_all(&self.dir)
                .with_context(|| format!("failed to make {}", self.dir.display()))?;
            // Whoever had it may just have removed it.
            if let Some(taken) = self.try_for_a_moment()? {
                return Ok(taken);
            }
        }
    }

    /// Takes the directory, or says who has it.
    pub fn lock(&self) -> anyhow::Result<Result<Lock, Holder>> {
        self.try_for_a_moment()?.with_context(|| {
            format!(
                "failed to lock {}: it was removed at this moment; try again",
                self.dir.display()
            )
        })
    }

    /// The process that is attached, if one is.
    pub fn holder(&self) -> Option<Holder> {
        // Shared, so that those who look are not in each other's way.
        let taken = self.try_lock(FlockArg::LockSharedNonblock);
        taken.ok()??.err()
    }

    fn try_for_a_moment(&self) -> anyhow::Result<Option<Result<Lock, Holder>>> {
        let begin = Instant::now();
        loop {
            match self.try_lock(FlockArg::LockExclusiveNonblock)? {
                Some(Err(_)) if begin.elapsed() < PATIENCE => {
                    thread::sleep(Duration::from_millis(5));
                }
                taken => return Ok(taken),
            }
        }
    }

    /// `None` where there is no directory, or by now another one.
    fn try_lock(&self, how: FlockArg) -> anyhow::Result<Option<Result<Lock, Holder>>> {
        let what = || format!("failed to lock {}", self.dir.display());
        let dir = match File::open(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            dir => dir.with_context(what)?,
        };
        match Flock::lock(dir, how) {
            Ok(lock) => Ok(self.is(&lock).then_some(Ok(lock))),
            Err((dir, nix::Error::EWOULDBLOCK)) => Ok(Some(Err(Holder::of(&dir)))),
            Err((_, error)) => Err(error).with_context(what),
        }
    }

    /// Whether a directory is still the one that has our name.
    fn is(&self, dir: &File) -> bool {
        let (Ok(named), Ok(opened)) = (fs::metadata(&self.dir), dir.metadata()) else {
            return false;
        };
        (named.dev(), named.ino()) == (opened.dev(), opened.ino())
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

fn move_to(from: &Path, to: &Path) -> anyhow::Result<()> {
    let (from_name, to_name) = (from.display(), to.display());
    fs::rename(from, to).with_context(|| format!("failed to move {from_name} to {to_name}"))
}

/// The process that holds the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// `None` where the kernel doesn't say: it is in another PID namespace.
    pub pid: Option<i32>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pid {
            Some(pid) => pid.fmt(f),
            None => f.pad("of another namespace"),
        }
    }
}

impl Holder {
    fn of(dir: &File) -> Self {
        let pid = || {
            let dir = dir.metadata().ok()?;
            let locks = fs::read_to_string("/proc/locks").ok()?;
            let file = format!(
                "{:02x}:{:02x}:{}",
                major(dir.dev()),
                minor(dir.dev()),
                dir.ino()
            );
            writer(&locks, &file)
        };
        Self { pid: pid() }
    }
}

/// Who holds a file exclusively, by `/proc/locks` (proc_locks(5)):
/// `1: FLOCK ADVISORY WRITE pid major:minor:inode start end`.
fn writer(locks: &str, file: &str) -> Option<i32> {
    let pid = locks.lines().find_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        match fields[..] {
            [_, "FLOCK", _, "WRITE", pid, of, ..] if of == file => pid.parse().ok(),
            _ => None,
        }
    });
    // 0, or -1, for one of another PID namespace.
    pid.filter(|&pid| pid > 0)
}

#[cfg(test)]
mod tests;

//! The pins of one trunk, and the lock on their directory.

use std::{
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};
use vlanfast_common::Direction;

use crate::{
    error::Error,
    pins::{
        dir::Dir,
        holder,
        holder::{Holder, Process},
        id::{Entry, TrunkId},
        layout::{SETTINGS, is_ours},
        root::Root,
    },
    state::name::Name,
};

/// How long a lock is tried for. Processes that only read hold a shared lock for a moment.
const PATIENCE: Duration = Duration::from_millis(100);

/// The pins of one trunk: a directory that is kept open.
#[derive(Clone, Debug)]
pub struct Pins {
    /// The name that the device had when it was looked up last.
    pub trunk: Name,
    /// `None` for pins of an early version, which knew trunks by their names.
    pub id: Option<TrunkId>,
    dir: Dir,
    root: Root,
}

/// The lock that a process holds while it is attached or detaches.
pub type Lock = Flock<OwnedFd>;

impl Pins {
    /// The pins of the trunks that `is_wanted` selects, sorted by name. A directory that can't be trusted is an error
    /// only if `is_meant` selects it.
    pub fn find(
        is_wanted: impl Fn(&Entry) -> bool,
        is_meant: impl Fn(&Entry) -> bool,
    ) -> anyhow::Result<Vec<Self>> {
        match Root::open()? {
            Some(root) => Self::find_in(&root, is_wanted, is_meant),
            None => Ok(vec![]),
        }
    }

    fn find_in(
        root: &Root,
        is_wanted: impl Fn(&Entry) -> bool,
        is_meant: impl Fn(&Entry) -> bool,
    ) -> anyhow::Result<Vec<Self>> {
        let entries = root.entries(is_wanted, is_meant)?.into_iter();
        let pins = entries.map(|(entry, dir)| Self {
            trunk: entry.name,
            id: entry.id,
            dir,
            root: root.clone(),
        });
        Ok(pins.collect())
    }

    /// Finds or makes the directory of a trunk and locks it. If another process has the lock, that process is returned.
    pub fn create(id: TrunkId, trunk: &Name) -> anyhow::Result<Result<(Self, Lock), Holder>> {
        Self::create_in(Root::make, id, trunk)
    }

    fn create_in(
        root: impl Fn() -> anyhow::Result<Root>,
        id: TrunkId,
        trunk: &Name,
    ) -> anyhow::Result<Result<(Self, Lock), Holder>> {
        loop {
            let root = root()?;
            let entry = Entry {
                id: Some(id),
                name: trunk.clone(),
            };
            let found = Self::find_in(&root, |entry| entry.id == Some(id), |_| true)?
                .into_iter()
                .next();
            let Some(mut pins) = found else {
                let name = entry.file_name();
                match root.dir.make(&name) {
                    // Another process that detached may have just removed the parent directory.
                    Ok(()) | Err(Errno::ENOENT) => continue,
                    Err(error) => {
                        let what = || format!("failed to make {}", root.dir.shown(&name));
                        return Err(error).with_context(what);
                    }
                }
            };
            match pins.lock_with_patience()? {
                None => {}
                Some(Err(holder)) => return Ok(Err(holder)),
                Some(Ok(lock)) => {
                    pins.adopt(id, trunk)?;
                    return Ok(Ok((pins, lock)));
                }
            }
        }
    }

    /// Gives the directory the id and the name of a trunk. A lock on the directory remains valid.
    pub fn adopt(&mut self, id: TrunkId, trunk: &Name) -> anyhow::Result<()> {
        self.id = Some(id);
        self.rename(trunk)
    }

    /// Renames the directory after its trunk was renamed. The name contains the id, so it can't collide with another's.
    pub fn rename(&mut self, trunk: &Name) -> anyhow::Result<()> {
        let entry = Entry {
            id: self.id,
            name: trunk.clone(),
        };
        let (old, new) = (self.file_name()?, entry.file_name());
        let root = &self.root.dir;
        if old != new {
            root.rename(&old, &new).with_context(|| {
                format!(
                    "failed to rename {} to {}",
                    root.shown(&old),
                    root.shown(&new)
                )
            })?;
        }
        self.trunk = trunk.clone();
        Ok(())
    }

    /// The current name of the directory.
    fn file_name(&self) -> anyhow::Result<Vec<u8>> {
        let root = &self.root.dir;
        for name in root.names()? {
            if self.dir.is_called(&name, root)? {
                return Ok(name);
            }
        }
        Err(anyhow::anyhow!("the pins of {} were removed", self.trunk))
    }

    /// Whether the directory still exists, under any name.
    pub fn exist(&self) -> bool {
        self.dir.stat().is_ok_and(|stat| stat.st_nlink > 0)
    }

    /// A path into this very directory. It is valid while this value exists.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path(name)
    }

    /// Whether anything is pinned at a path of [`path`](Self::path).
    pub fn has(&self, path: &Path) -> anyhow::Result<bool> {
        self.dir.has(path.file_name().unwrap_or_default())
    }

    /// The path at which the link of a hook is pinned.
    pub fn link(&self, hook: Direction) -> PathBuf {
        self.path(match hook {
            Direction::Rx => "ingress_link",
            Direction::Tx => "egress_link",
        })
    }

    /// The path at which the program of a hook is pinned.
    pub fn program(&self, hook: Direction) -> PathBuf {
        self.path(match hook {
            Direction::Rx => "ingress_program",
            Direction::Tx => "egress_program",
        })
    }

    /// Locks the directory. If another process has the lock, that process is returned.
    pub fn lock(&self) -> anyhow::Result<Result<Lock, Holder>> {
        self.lock_with_patience()?.with_context(|| {
            format!(
                "failed to lock the pins of {}: another process has just removed them; try again",
                self.trunk
            )
        })
    }

    /// The process that is attached, if there is one.
    pub fn holder(&self) -> Option<Holder> {
        // The lock is shared, so that readers do not exclude each other.
        let taken = self.try_lock(FlockArg::LockSharedNonblock);
        taken.ok()??.err()
    }

    /// The process that is attached, as a pidfd. It runs vlanfast and holds the lock itself; any other holder is an
    /// error that names it.
    pub fn process(&self) -> anyhow::Result<Option<Process>> {
        const TRIES: u32 = 5;
        let dir = self.dir.stat()?;
        for _ in 0..TRIES {
            let Some(holder) = self.holder() else {
                return Ok(None);
            };
            let pid = holder.pid.with_context(|| {
                format!(
                    "the process that is attached to {} is in another PID namespace: stop it there",
                    self.trunk
                )
            })?;
            match Process::open(pid)? {
                Some(process) if process.has_locked(&dir)? => {
                    if process.is_vlanfast() {
                        return Ok(Some(process));
                    }
                    break;
                }
                // The process has ended since, and its pid may be in use again.
                _ => thread::sleep(PATIENCE / TRIES),
            }
        }
        Err(Error::Locked {
            trunk: self.trunk.to_string(),
            holder: holder::holders(&dir),
        }
        .into())
    }

    /// Tries to lock for [`PATIENCE`]; `None` if the directory was removed.
    fn lock_with_patience(&self) -> anyhow::Result<Option<Result<Lock, Holder>>> {
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

    /// Tries to lock once; `None` if the directory was removed.
    fn try_lock(&self, how: FlockArg) -> anyhow::Result<Option<Result<Lock, Holder>>> {
        if !self.exist() {
            return Ok(None);
        }
        match Flock::lock(self.dir.again()?, how) {
            Ok(lock) => Ok(self.exist().then_some(Ok(lock))),
            Err((_, Errno::EWOULDBLOCK)) => Ok(Some(Err(Holder::of(&self.dir.stat()?)))),
            Err((_, error)) => {
                Err(error).with_context(|| format!("failed to lock the pins of {}", self.trunk))
            }
        }
    }

    /// Waits until nobody holds the lock or the directory is gone. Returns `false` after `at_most`.
    pub async fn wait_until_free(&self, at_most: Duration) -> bool {
        let freed = async {
            while self.exist() && self.holder().is_some() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(at_most, freed).await.is_ok()
    }

    /// Removes all our pins, and the directory unless it holds something else. Removing the last reference to a link
    /// detaches its program.
    pub fn remove(&self) -> anyhow::Result<()> {
        let file_name = self.file_name()?;
        let shown =
            |name: &[u8]| format!("{}/{}", self.root.dir.shown(&file_name), Name::new(name));
        let (mut ours, others): (Vec<_>, Vec<_>) = self
            .dir
            .names()?
            .into_iter()
            .partition(|name| is_ours(name));
        ours.sort_by_key(|name| name == SETTINGS.as_bytes());
        for name in ours {
            self.dir
                .unlink(&name)
                .with_context(|| format!("failed to remove {}", shown(&name)))?;
        }
        if !others.is_empty() {
            let others: Vec<_> = others.iter().map(|name| shown(name)).collect();
            return Err(Error::NotOurs {
                trunk: self.trunk.to_string(),
                files: others.join(", "),
            }
            .into());
        }
        let remove = || {
            self.root.dir.remove(&file_name)?;
            self.root.remove()
        };
        remove().with_context(|| format!("failed to remove {}", self.root.dir.shown(&file_name)))
    }
}

#[cfg(test)]
mod tests;

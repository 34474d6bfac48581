//! What outlives the process: `/sys/fs/bpf/vlanfast/<namespace>:<ifindex>:<name>/`, and whose it is at the
//! moment.
//!
//! A process that is attached holds a lock on the directory, so it is known to be alive without any
//! file of its own, and a `kill -9` leaves no wrong trace.

mod dir;
mod holder;
mod id;
mod root;

use std::{
    fs, io,
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

pub use crate::pins::{
    holder::{Holder, Process},
    id::{Entry, TrunkId, netns},
    root::{Root, bpffs},
};
use crate::{error::Error, pins::dir::Dir, state::name::Name};

pub const COUNTERS: &str = "COUNTERS";
pub const SETTINGS: &str = "SETTINGS";
pub const STATUS: &str = "STATUS";
pub const VLANS: &str = "VLANS";
pub const ENDPOINTS: &str = "ENDPOINTS";
pub const NEIGHBORS: &str = "NEIGHBORS";
pub const ROUTES: &str = "ROUTES";
pub const FLOWS: &str = "FLOWS";
pub const PAIRS: &str = "PAIRS";
pub const CLAIMS: &str = "CLAIMS";

/// The maps that are pinned, in that order: who finds others without `SETTINGS` could not undo them.
pub const MAPS: [&str; 10] = [
    SETTINGS, COUNTERS, STATUS, VLANS, ENDPOINTS, NEIGHBORS, ROUTES, FLOWS, PAIRS, CLAIMS,
];

/// What else is pinned.
const HOOKS: [&str; 4] = [
    "ingress_link",
    "egress_link",
    "ingress_program",
    "egress_program",
];
/// Before the name of a pin that is to take another's place.
const NEXT: &str = "next_";

/// How long a lock is tried for: those who only look hold a shared one for a moment.
const PATIENCE: Duration = Duration::from_millis(100);

/// The pins of one trunk: a directory that is held open.
#[derive(Clone, Debug)]
pub struct Pins {
    /// As it was called when somebody looked last.
    pub trunk: Name,
    /// `None` of a version that knew trunks by their names.
    pub id: Option<TrunkId>,
    dir: Dir,
    root: Root,
}

/// Held for as long as a process is attached, or detaches.
pub type Lock = Flock<OwnedFd>;

impl Pins {
    /// Makes the directory of a trunk, or finds it, and takes it; or says who has it.
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
            let found = root
                .pins(|entry| entry.id == Some(id), |_| true)?
                .into_iter()
                .next();
            let Some(mut pins) = found else {
                let name = entry.file_name();
                match root.dir.make(&name) {
                    // Whoever detached last may just have removed what it was to be made in.
                    Ok(()) | Err(Errno::ENOENT) => continue,
                    Err(error) => {
                        let what = || format!("failed to make {}", root.dir.shown(&name));
                        return Err(error).with_context(what);
                    }
                }
            };
            match pins.try_for_a_moment()? {
                None => {}
                Some(Err(holder)) => return Ok(Err(holder)),
                Some(Ok(lock)) => {
                    pins.adopt(id, trunk)?;
                    return Ok(Ok((pins, lock)));
                }
            }
        }
    }

    /// Has the directory say which trunk it is of. A lock stays: it is the directory's, not the name's.
    pub fn adopt(&mut self, id: TrunkId, trunk: &Name) -> anyhow::Result<()> {
        self.id = Some(id);
        self.rename(trunk)
    }

    /// Follows a trunk that was renamed. Nobody else's pins can be in the way.
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

    /// What the directory is called by now.
    fn file_name(&self) -> anyhow::Result<Vec<u8>> {
        let root = &self.root.dir;
        for name in root.names()? {
            if self.dir.is_called(&name, root)? {
                return Ok(name);
            }
        }
        Err(anyhow::anyhow!("the pins of {} are gone", self.trunk))
    }

    /// Whether the directory is still there, under whatever name.
    pub fn exist(&self) -> bool {
        self.dir.stat().is_ok_and(|stat| stat.st_nlink > 0)
    }

    /// A path of something in this very directory, good for as long as these are held.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path(name)
    }

    /// Whether anything is pinned at one of our paths.
    pub fn has(&self, path: &Path) -> anyhow::Result<bool> {
        self.dir.has(path.file_name().unwrap_or_default())
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

    /// Takes the directory, or says who has it.
    pub fn lock(&self) -> anyhow::Result<Result<Lock, Holder>> {
        self.try_for_a_moment()?.with_context(|| {
            format!(
                "failed to lock the pins of {}: they were removed at this moment; try again",
                self.trunk
            )
        })
    }

    /// The process that is attached, if one is.
    pub fn holder(&self) -> Option<Holder> {
        // Shared, so that those who look are not in each other's way.
        let taken = self.try_lock(FlockArg::LockSharedNonblock);
        taken.ok()??.err()
    }

    /// The process that is attached, by a descriptor: it is vlanfast's, and has the lock by itself. Anybody else
    /// who has it is an error that names him.
    pub fn process(&self) -> anyhow::Result<Option<Process>> {
        const TRIES: u32 = 5;
        let dir = self.dir.stat()?;
        for _ in 0..TRIES {
            let Some(holder) = self.holder() else {
                return Ok(None);
            };
            let pid = holder.pid.with_context(|| {
                format!(
                    "the process attached to {} is in another PID namespace: stop it there",
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
                // It has ended since, and the number may be another's.
                _ => thread::sleep(PATIENCE / TRIES),
            }
        }
        Err(Error::Locked {
            trunk: self.trunk.to_string(),
            holder: holder::holders(&dir),
        }
        .into())
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

    /// `None` where the directory was removed.
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

    /// Waits until the directory is free or gone; whether it is.
    pub async fn wait_until_free(&self, at_most: Duration) -> bool {
        let freed = async {
            while self.exist() && self.holder().is_some() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(at_most, freed).await.is_ok()
    }

    /// Removes every pin of ours, and the directory unless something else is in it. What is attached by a link
    /// goes with it, if nothing else holds it.
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

/// Whether a pin of that name is one of those that we make.
fn is_ours(name: &[u8]) -> bool {
    let name = name.strip_prefix(NEXT.as_bytes()).unwrap_or(name);
    let ours = MAPS.iter().chain(&HOOKS);
    ours.into_iter().any(|known| known.as_bytes() == name)
}

/// Where a pin stands until it takes the place of the one at `path`; or where a crash has left it.
pub fn next(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{NEXT}{name}"))
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

#[cfg(test)]
mod tests;

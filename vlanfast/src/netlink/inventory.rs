//! Keeps an inventory of the devices and addresses of every network namespace, read over netlink. It needs no `setns`
//! and does not depend on the container runtime.
//!
//! An incomplete read keeps what was known, makes the inventory [incomplete](Inventory::is_whole), and is repeated.
//! A namespace or device that changes continuously is read only now and then (`backoff.rs`), without delaying others.

mod backoff;
mod refresh;
mod retry;

use std::{
    collections::{BTreeMap, BTreeSet},
    io, mem,
    time::Duration,
};

use anyhow::Context;
use tokio::time::{Instant, sleep_until};

use self::retry::Retry;
use super::{
    dump::{Answer, NamespaceReader},
    events::{Dirty, Events, HookEvents, Notifications},
    query::Netlink,
};
use crate::{
    netlink::{
        inventory::backoff::{Backoff, ChangeSource},
        nsid::Mounts,
        process_namespaces,
    },
    state::{
        name::Name,
        snapshot::{DeviceId, Ifindex, Nsid, Receivers, Snapshot},
    },
};

/// The pause between two batches of notifications. Processing thousands at once is cheap, and the socket has room for
/// them.
const REST: Duration = Duration::from_millis(10);

/// Reads the names of all devices of our own namespace.
pub async fn names() -> anyhow::Result<BTreeMap<Ifindex, Name>> {
    let reader = NamespaceReader::open(Netlink::connect()?).await?;
    let links = match reader.namespace(Nsid::Own).await? {
        Answer::Found(read) => read.namespace.links,
        Answer::Gone | Answer::Unclear(_) => BTreeMap::new(),
    };
    Ok(links
        .into_iter()
        .map(|(ifindex, link)| (ifindex, link.name))
        .collect())
}

/// The devices and addresses that netlink shows, kept up to date.
pub struct Inventory {
    reader: NamespaceReader,
    events: Events,
    mounts: Mounts,
    heard: Notifications,
    /// Namespaces to read again, a few in each round.
    again: BTreeSet<Nsid>,
    /// Devices to read again because their upper devices have changed.
    below: BTreeSet<DeviceId>,
    snapshot: Snapshot,
    /// The last read has changed the inventory.
    differs: bool,
    retry: Retry,
    backoff: Backoff,
    /// Events were lost, and not everything has been read again since.
    is_lost: bool,
    /// When the next notifications are processed, at the earliest.
    rest: Instant,
}

impl Inventory {
    /// Subscribes to notifications before anything is read, so that no change is missed.
    pub async fn open() -> anyhow::Result<Self> {
        let events = Events::listen()?;
        let dirty = Dirty {
            all: true,
            ..Dirty::default()
        };
        Ok(Self {
            events,
            mounts: Mounts::open()?,
            reader: NamespaceReader::open(Netlink::connect()?).await?,
            heard: Notifications {
                dirty,
                ..Notifications::default()
            },
            again: BTreeSet::new(),
            below: BTreeSet::new(),
            snapshot: Snapshot::default(),
            differs: false,
            retry: Retry::default(),
            backoff: Backoff::default(),
            is_lost: false,
            rest: Instant::now(),
        })
    }

    pub const fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Stores the receivers on devices of our own namespace, and returns whether they have changed. A changed MAC list
    /// may switch the device's promiscuous mode without a notification (`__dev_set_rx_mode`), so the device is read
    /// again.
    pub fn update_receivers(&mut self, receivers: BTreeMap<Ifindex, Receivers>) -> bool {
        let differs = self.snapshot.receivers != receivers;
        let known = std::mem::replace(&mut self.snapshot.receivers, receivers);
        for (ifindex, now) in &self.snapshot.receivers {
            if known.get(ifindex).map(|known| &known.unicast) != Some(&now.unicast) {
                self.below.insert((Nsid::Own, *ifindex));
            }
        }
        differs
    }

    /// Gives an id to the network namespaces of all processes, so that netlink shows them. Returns whether every
    /// process could be examined.
    pub async fn search(&self) -> anyhow::Result<bool> {
        let found = process_namespaces::namespaces().await?;
        for (inode, path) in &found.namespaces {
            // The process may have ended in the meantime.
            if let Some(file) = process_namespaces::open(*inode, path) {
                self.reader.give_id_to(&file).await?;
            }
        }
        Ok(!found.refused)
    }

    /// Whether the inventory is complete. If not, [`Inventory::snapshot`] may lack a device, or still have one that is
    /// gone. A gap does not count if it only affects the container that keeps changing its own devices.
    pub fn is_whole(&self) -> bool {
        self.retry.is_whole()
    }

    /// Whether everything has been read since events were last lost.
    pub const fn is_caught_up(&self) -> bool {
        !self.is_lost
    }

    /// Takes the hook events since the last call.
    pub fn take_hook_events(&mut self) -> HookEvents {
        std::mem::take(&mut self.heard.hooks)
    }

    /// Processes pending notifications.
    pub fn drain_events(&mut self) {
        if self.events.drain(&mut self.heard).is_err() {
            self.heard.lose();
        }
    }

    /// Whether a device of our own namespace was removed or moved to another one since the last call. Its index may be
    /// reused by now.
    pub fn take_lost(&mut self, ifindex: Ifindex) -> bool {
        std::mem::take(&mut self.heard.lost).contains(&ifindex)
    }

    /// Whether something should be read now.
    pub fn is_behind(&self) -> bool {
        let dirty = &self.heard.dirty;
        let now = Instant::now();
        dirty.all
            || dirty.list
            || !dirty.renumbered.is_empty()
            || !self.again.is_empty()
            || !self.below.is_empty()
            || self
                .change_sources()
                .any(|who| self.backoff.waits(who, now).is_none())
    }

    /// The sources of changes that were not read yet.
    fn change_sources(&self) -> impl Iterator<Item = ChangeSource> {
        self.heard.dirty.links.iter().flat_map(|(&id, links)| {
            let nsid = self.reader.nsid(id);
            // All devices of another namespace are one source.
            let count = if nsid == Nsid::Own { links.len() } else { 1 };
            let some = links.iter().take(count);
            some.map(move |&ifindex| ChangeSource::of(nsid, ifindex))
        })
    }

    /// Waits until something should be read or a hook may have changed. Safe to cancel.
    pub async fn changed(&mut self) -> io::Result<()> {
        while !self.is_behind() && self.heard.hooks.is_empty() {
            let now = Instant::now();
            let turns = self
                .change_sources()
                .filter_map(|who| self.backoff.waits(who, now));
            let turn = turns.min();
            tokio::select! {
                heard = next_event(self.rest, &self.events) => {
                    heard?;
                    // The loop goes on if the event is irrelevant.
                    self.drain_events();
                    self.rest = Instant::now() + REST;
                }
                mounted = self.mounts.changed() => {
                    self.heard.dirty.list = true;
                    mounted?;
                }
                () = self.retry.due() => {
                    let (namespaces, list) = self.retry.take();
                    self.again.extend(namespaces);
                    self.heard.dirty.list |= list;
                }
                () = sleep_until(turn.unwrap_or(now)), if turn.is_some() => {}
            }
        }
        Ok(())
    }

    /// Marks everything as stale. Each [`Inventory::refresh`] reads a part of it, so that changes are not delayed.
    pub fn mark_stale(&mut self) {
        self.heard.dirty.list = true;
        self.again.extend(self.snapshot.namespaces.keys());
    }

    /// Reads what has changed, and returns whether the inventory differs. After an error or a cancellation, the next
    /// call reads everything.
    pub async fn refresh(&mut self) -> anyhow::Result<bool> {
        self.events
            .drain(&mut self.heard)
            .context("failed to read netlink events")?;
        let dirty = self.take_due(Instant::now());
        self.heard.dirty.all = true;
        self.read(&dirty).await?;
        self.read_below().await?;
        self.heard.dirty.all = false;
        self.is_lost &= !self.again.is_empty();
        self.retry.settle();
        self.backoff.settle(Instant::now());
        Ok(mem::take(&mut self.differs))
    }

    /// Takes what should be read now, and leaves what is in backoff.
    fn take_due(&mut self, now: Instant) -> Dirty {
        let mut dirty = mem::take(&mut self.heard.dirty);
        for (&id, links) in &mut dirty.links {
            let nsid = self.reader.nsid(id);
            let waits = |ifindex| {
                self.backoff
                    .waits(ChangeSource::of(nsid, ifindex), now)
                    .is_some()
            };
            let (waiting, due) = mem::take(links).into_iter().partition(|it| waits(*it));
            *links = due;
            if !BTreeSet::is_empty(&waiting) {
                self.heard.dirty.links.insert(id, waiting);
            }
        }
        dirty.links.retain(|_, links| !links.is_empty());
        dirty
    }

    /// Asks the kernel whether a device of our own namespace is gone. Its absence from the inventory is no proof.
    pub async fn is_gone(&self, ifindex: Ifindex) -> anyhow::Result<bool> {
        let answer = self.reader.link(Nsid::Own, ifindex).await?;
        Ok(matches!(answer, Answer::Gone))
    }
}

/// Waits for a notification after the pause.
async fn next_event(rest: Instant, events: &Events) -> io::Result<()> {
    sleep_until(rest).await;
    events.wait().await
}

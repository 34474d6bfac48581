//! The devices of every namespace, by netlink alone: no `setns`, no walk through `/proc`, and no
//! matter which runtime made them.
//!
//! A read that may lack something keeps what was known, is not [whole](Inventory::is_whole), and is done again.
//! Whoever changes all the time is read now and then (`backoff.rs`), and until then nobody waits for him.

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
    dump::{Answer, Questions},
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

/// After events that nobody has to hear at once, before the next are taken in: thousands of them a second are cheap
/// together, and there is room for as many.
const REST: Duration = Duration::from_millis(10);

/// The names of the devices of our own namespace.
pub async fn names() -> anyhow::Result<BTreeMap<Ifindex, Name>> {
    let questions = Questions::open(Netlink::connect()?).await?;
    let links = match questions.namespace(Nsid::Own).await? {
        Answer::There(read) => read.namespace.links,
        Answer::Gone | Answer::Unclear(_) => BTreeMap::new(),
    };
    Ok(links
        .into_iter()
        .map(|(ifindex, link)| (ifindex, link.name))
        .collect())
}

/// What netlink shows, kept up to date.
pub struct Inventory {
    questions: Questions,
    events: Events,
    mounts: Mounts,
    heard: Notifications,
    /// Namespaces to read once more, when there is time.
    again: BTreeSet<Nsid>,
    /// Devices to read once more, because those on top of them have changed.
    below: BTreeSet<DeviceId>,
    network: Snapshot,
    /// What was read last is not what was there before.
    differs: bool,
    retry: Retry,
    backoff: Backoff,
    /// Events were lost: until everything was read anew, anything may be other than it was.
    is_lost: bool,
    /// Until when nothing is taken in.
    rest: Instant,
}

impl Inventory {
    /// Listens first and reads later: what happens in between is heard.
    pub async fn open() -> anyhow::Result<Self> {
        let events = Events::listen()?;
        let dirty = Dirty {
            all: true,
            ..Dirty::default()
        };
        Ok(Self {
            events,
            mounts: Mounts::open()?,
            questions: Questions::open(Netlink::connect()?).await?,
            heard: Notifications {
                dirty,
                ..Notifications::default()
            },
            again: BTreeSet::new(),
            below: BTreeSet::new(),
            network: Snapshot::default(),
            differs: false,
            retry: Retry::default(),
            backoff: Backoff::default(),
            is_lost: false,
            rest: Instant::now(),
        })
    }

    pub const fn network(&self) -> &Snapshot {
        &self.network
    }

    /// Takes in what receives on devices of our own namespace; whether that is new. A device with another list may
    /// be in promiscuous mode for it, or no more, of which the kernel tells nobody (`__dev_set_rx_mode`).
    pub fn hear_of(&mut self, receivers: BTreeMap<Ifindex, Receivers>) -> bool {
        let differs = self.network.receivers != receivers;
        let known = std::mem::replace(&mut self.network.receivers, receivers);
        for (ifindex, now) in &self.network.receivers {
            if known.get(ifindex).map(|known| &known.unicast) != Some(&now.unicast) {
                self.below.insert((Nsid::Own, *ifindex));
            }
        }
        differs
    }

    /// Gives the namespaces of all processes an id, so that they are seen and heard; whether none of them was kept
    /// from us.
    pub async fn search(&self) -> anyhow::Result<bool> {
        let found = process_namespaces::namespaces().await?;
        for (inode, path) in &found.namespaces {
            // It may have ended since.
            if let Some(file) = process_namespaces::open(*inode, path) {
                self.questions.give_id_to(&file).await?;
            }
        }
        Ok(!found.refused)
    }

    /// Whether everything could be read that others than its owner depend on. If not, somebody may be there who is
    /// not in [`Inventory::network`], or somebody there may be gone.
    pub fn is_whole(&self) -> bool {
        self.retry.is_whole()
    }

    /// Whether everything was read since events were lost.
    pub const fn is_caught_up(&self) -> bool {
        !self.is_lost
    }

    /// What has happened to hooks since this was asked last.
    pub fn take_hook_events(&mut self) -> HookEvents {
        std::mem::take(&mut self.heard.hooks)
    }

    /// Takes in what has happened by now.
    pub fn hear(&mut self) {
        if self.events.drain(&mut self.heard).is_err() {
            self.heard.lose();
        }
    }

    /// Whether a device of our own namespace was removed, or moved elsewhere, since this was asked last: its index
    /// may be another's by now.
    pub fn take_loss(&mut self, ifindex: Ifindex) -> bool {
        std::mem::take(&mut self.heard.lost).contains(&ifindex)
    }

    /// Whether something is to be read now.
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

    /// Who has changed something that was not read yet.
    fn change_sources(&self) -> impl Iterator<Item = ChangeSource> {
        self.heard.dirty.links.iter().flat_map(|(&id, links)| {
            let nsid = self.questions.nsid(id);
            // Another namespace's are all of one source.
            let count = if nsid == Nsid::Own { links.len() } else { 1 };
            let some = links.iter().take(count);
            some.map(move |&ifindex| ChangeSource::of(nsid, ifindex))
        })
    }

    /// Waits until something is to be read, or has happened to a hook. Cancelled, it loses nothing.
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
                    // An event of no interest wakes nobody.
                    self.hear();
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

    /// Has everything read anew, a part at each [`Inventory::refresh`], so that what changes meanwhile does
    /// not have to wait.
    pub fn mark_stale(&mut self) {
        self.heard.dirty.list = true;
        self.again.extend(self.network.namespaces.keys());
    }

    /// Reads what has changed, and says whether anything differs. After an error, or cancelled, everything is
    /// read at the next call.
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

    /// What is to be read now. What may wait stays.
    fn take_due(&mut self, now: Instant) -> Dirty {
        let mut dirty = mem::take(&mut self.heard.dirty);
        for (&id, links) in &mut dirty.links {
            let nsid = self.questions.nsid(id);
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

    /// Whether the kernel says that a device of our own namespace is gone. Asked about that very device: that it
    /// was not seen means nothing.
    pub async fn is_gone(&self, ifindex: Ifindex) -> anyhow::Result<bool> {
        let answer = self.questions.link(Nsid::Own, ifindex).await?;
        Ok(matches!(answer, Answer::Gone))
    }
}

/// Waits for an event once the rest is over.
async fn next_event(rest: Instant, events: &Events) -> io::Result<()> {
    sleep_until(rest).await;
    events.wait().await
}

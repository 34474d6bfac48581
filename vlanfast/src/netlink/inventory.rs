//! The devices of every namespace, by netlink alone: no `setns`, no walk through `/proc`, and no
//! matter which runtime made them.
//!
//! A read that may lack something keeps what was known, is not [whole](Inventory::is_whole), and is done again.

mod read;
mod retry;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use anyhow::Context;

use self::retry::Retry;
use super::{
    dump::{Answer, Questions},
    events::{Dirty, Events, Heard, HookEvents},
    mounts::Mounts,
    query::Netlink,
};
use crate::state::{
    name::Name,
    snapshot::{Ifindex, Network, Nsid, Place},
};

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
    heard: Heard,
    /// Namespaces to read once more, when there is time.
    again: BTreeSet<Nsid>,
    /// Devices to read once more, because those on top of them have changed.
    below: BTreeSet<Place>,
    network: Network,
    /// What was read last is not what was there before.
    differs: bool,
    retry: Retry,
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
            heard: Heard {
                dirty,
                ..Heard::default()
            },
            again: BTreeSet::new(),
            below: BTreeSet::new(),
            network: Network::default(),
            differs: false,
            retry: Retry::default(),
        })
    }

    pub const fn network(&self) -> &Network {
        &self.network
    }

    /// Whether everything could be read that was looked at last. If not, somebody may be there who is not in
    /// [`Inventory::network`], or somebody there may be gone.
    pub fn is_whole(&self) -> bool {
        self.retry.is_idle()
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

    /// Whether something is to be read.
    pub fn is_behind(&self) -> bool {
        !self.heard.dirty.is_empty() || !self.again.is_empty()
    }

    /// Waits until something has changed, or happened to a hook, or is to be read again. Cancelled, it loses
    /// nothing.
    pub async fn changed(&mut self) -> io::Result<()> {
        while !self.is_behind() && self.heard.hooks.is_empty() {
            tokio::select! {
                heard = self.events.wait() => {
                    heard?;
                    // An event of no interest wakes nobody.
                    self.hear();
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
            }
        }
        Ok(())
    }

    /// Has everything read anew, a part at each [`Inventory::refresh`], so that what changes meanwhile does
    /// not have to wait.
    pub fn doubt(&mut self) {
        self.heard.dirty.list = true;
        self.again.extend(self.network.namespaces.keys());
    }

    /// Reads what has changed, and says whether anything differs. After an error, or cancelled, everything is
    /// read at the next call.
    pub async fn refresh(&mut self) -> anyhow::Result<bool> {
        self.events
            .drain(&mut self.heard)
            .context("failed to read netlink events")?;
        let dirty = std::mem::take(&mut self.heard.dirty);
        self.heard.dirty.all = true;
        self.read(&dirty).await?;
        self.read_below().await?;
        self.heard.dirty = Dirty::default();
        self.retry.settle();
        Ok(std::mem::take(&mut self.differs))
    }

    /// Whether the kernel says that a device of our own namespace is gone. Asked about that very device: that it
    /// was not seen means nothing.
    pub async fn is_gone(&self, ifindex: Ifindex) -> anyhow::Result<bool> {
        let answer = self.questions.link(Nsid::Own, ifindex).await?;
        Ok(matches!(answer, Answer::Gone))
    }
}

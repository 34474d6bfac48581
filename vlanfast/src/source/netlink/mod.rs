//! The devices of every namespace, by netlink alone: no `setns`, no walk through `/proc`, and no
//! matter which runtime made them.

mod dump;
mod events;
mod mounts;
mod read;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io,
};

use anyhow::Context;

use self::{
    dump::Questions,
    events::{Dirty, Events},
    mounts::Mounts,
};
use crate::state::snapshot::{Ifindex, Kind, Link, Namespace, Network, Nsid, Place};

/// More changed devices of one namespace than this, and reading all of it is cheaper.
const ONE_BY_ONE: usize = 64;
/// Namespaces that are read once more before what has changed meanwhile has its turn.
const AT_ONCE: usize = 16;

/// The names of the devices of our own namespace.
pub fn names() -> anyhow::Result<BTreeMap<Ifindex, String>> {
    let read = Questions::open()?.namespace(Nsid::Own)?;
    let links = read.map(|read| read.namespace.links).unwrap_or_default();
    Ok(links
        .into_iter()
        .map(|(ifindex, link)| (ifindex, link.name))
        .collect())
}

/// What netlink shows, kept up to date.
pub struct Netlink {
    questions: Questions,
    events: Events,
    mounts: Mounts,
    dirty: Dirty,
    /// Namespaces to read once more, when there is time.
    again: BTreeSet<Nsid>,
    /// Devices to read once more, because those on top of them have changed.
    below: BTreeSet<Place>,
    network: Network,
    /// What was read last is not what was there before.
    differs: bool,
}

impl Netlink {
    /// Listens first and reads later: what happens in between is heard.
    pub fn open() -> anyhow::Result<Self> {
        let events = Events::listen()?;
        Ok(Self {
            events,
            mounts: Mounts::open()?,
            questions: Questions::open()?,
            dirty: Dirty {
                all: true,
                ..Dirty::default()
            },
            again: BTreeSet::new(),
            below: BTreeSet::new(),
            network: Network::default(),
            differs: false,
        })
    }

    pub const fn network(&self) -> &Network {
        &self.network
    }

    /// Waits until something has changed. Cancelled, it loses nothing.
    pub async fn changed(&mut self) -> io::Result<()> {
        if !self.dirty.is_empty() || !self.again.is_empty() {
            return Ok(());
        }
        tokio::select! {
            heard = self.events.wait() => heard,
            mounted = self.mounts.changed() => {
                self.dirty.list = true;
                mounted
            }
        }
    }

    /// Has everything read anew, a part at each [`Netlink::refresh`], so that what changes meanwhile does
    /// not have to wait.
    pub fn doubt(&mut self) {
        self.dirty.list = true;
        self.again.extend(self.network.namespaces.keys());
    }

    /// Reads what has changed, and says whether anything differs. After an error, everything is read at
    /// the next call.
    pub fn refresh(&mut self) -> anyhow::Result<bool> {
        self.events
            .drain(&mut self.dirty)
            .context("failed to read netlink events")?;
        let dirty = std::mem::take(&mut self.dirty);
        let result = self.read(&dirty).and_then(|()| self.read_below());
        if result.is_err() {
            self.dirty.all = true;
        }
        result.map(|()| std::mem::take(&mut self.differs))
    }

    fn read(&mut self, dirty: &Dirty) -> anyhow::Result<()> {
        for &(namespace, id) in &dirty.renumbered {
            if self.questions.nsid(namespace) == Nsid::Own {
                self.forget(Nsid::Other(id));
            }
        }
        if dirty.all || dirty.list {
            self.give_ids(dirty.all)?;
            let mut there = self.questions.namespaces()?;
            there.insert(Nsid::Own);
            let known: Vec<_> = self.network.namespaces.keys().copied().collect();
            for gone in known.into_iter().filter(|nsid| !there.contains(nsid)) {
                self.forget(gone);
            }
            for nsid in there {
                if dirty.all || !self.network.namespaces.contains_key(&nsid) {
                    self.read_namespace(nsid)?;
                }
            }
        }
        if dirty.all {
            return Ok(());
        }
        for (&id, links) in &dirty.links {
            let nsid = self.questions.nsid(id);
            if links.len() > ONE_BY_ONE || !self.network.namespaces.contains_key(&nsid) {
                self.read_namespace(nsid)?;
                continue;
            }
            for &ifindex in links {
                self.read_link(nsid, ifindex)?;
            }
        }
        for _ in 0..AT_ONCE {
            let Some(nsid) = self.again.pop_first() else {
                break;
            };
            self.read_namespace(nsid)?;
        }
        Ok(())
    }

    fn forget(&mut self, nsid: Nsid) {
        if let Some(old) = self.network.namespaces.remove(&nsid) {
            self.below.extend(lowers(&old));
            self.differs = true;
        }
        self.again.remove(&nsid);
    }

    /// Gives an id to the namespaces that have none; to all, where we are in doubt.
    fn give_ids(&mut self, all: bool) -> anyhow::Result<()> {
        if all {
            self.mounts.forget();
        }
        for mount in self.mounts.unknown()? {
            // Unmounted since, or under a directory that we may not enter.
            if let Ok(file) = File::open(&mount.path) {
                self.questions.give_id_to(&file)?;
                self.mounts.know(mount);
            }
        }
        Ok(())
    }

    fn read_namespace(&mut self, nsid: Nsid) -> anyhow::Result<()> {
        match self.questions.namespace(nsid)? {
            Some(read) => {
                if !read.whole {
                    self.again.insert(nsid);
                }
                let old = self.network.namespaces.insert(nsid, read.namespace);
                let new = self.network.namespaces.get(&nsid);
                if old.as_ref() != new {
                    self.below.extend(old.iter().chain(new).flat_map(lowers));
                    self.differs = true;
                }
            }
            None => self.forget(nsid),
        }
        Ok(())
    }

    fn read_link(&mut self, nsid: Nsid, ifindex: Ifindex) -> anyhow::Result<()> {
        let read = self.questions.link(nsid, ifindex)?;
        let Some(namespace) = self.network.namespaces.get_mut(&nsid) else {
            return Ok(());
        };
        let (link, addresses) = read.unzip();
        let old = namespace.links.get(&ifindex);
        if old != link.as_ref() {
            self.below
                .extend(old.into_iter().chain(&link).filter_map(lower));
            self.differs = true;
        }
        self.differs |= namespace.addresses.get(&ifindex) != addresses.as_ref();
        match (link, addresses) {
            (Some(link), Some(addresses)) => {
                namespace.links.insert(ifindex, link);
                namespace.addresses.insert(ifindex, addresses);
            }
            _ => {
                namespace.links.remove(&ifindex);
                namespace.addresses.remove(&ifindex);
            }
        }
        Ok(())
    }

    /// Reads the devices below those that have changed: what is asked of them, promiscuous mode say, the
    /// kernel does not always tell in an event of their own.
    fn read_below(&mut self) -> anyhow::Result<()> {
        let mut all = std::mem::take(&mut self.below);
        let mut tops: Vec<_> = all.iter().copied().collect();
        while let Some(top) = tops.pop() {
            let below = self.network.find(top).and_then(|(_, link)| lower(link));
            tops.extend(below.filter(|below| all.insert(*below)));
        }
        for (nsid, ifindex) in all {
            self.read_link(nsid, ifindex)?;
        }
        self.below.clear();
        Ok(())
    }
}

/// The device of which one asks something; the peer of a veth is none.
fn lower(link: &Link) -> Option<Place> {
    match link.kind {
        Kind::Other | Kind::Ipvlan => None,
        Kind::Vlan(_) | Kind::ServiceVlan | Kind::Macvlan(_) | Kind::Macvtap(_) => link.lower,
    }
}

fn lowers(namespace: &Namespace) -> impl Iterator<Item = Place> {
    namespace.links.values().filter_map(lower)
}

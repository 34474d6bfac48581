//! Reads what has changed into the inventory.

use std::{collections::BTreeSet, fs::File};

use tokio::time::Instant;

use crate::{
    netlink::{
        dump::Answer,
        events::Dirty,
        inventory::{Inventory, backoff::ChangeSource},
        merge::{Missing, NamespaceDump, join},
    },
    state::snapshot::{DeviceId, Ifindex, Link, LinkKind, Namespace, Nsid},
};

/// With more changed devices than this, reading the whole namespace is cheaper.
const ONE_BY_ONE: usize = 64;
/// How many namespaces are read again in one round.
const AT_ONCE: usize = 16;

impl Inventory {
    pub(super) async fn read(&mut self, dirty: &Dirty) -> anyhow::Result<()> {
        for &(namespace, id) in &dirty.renumbered {
            if self.reader.nsid(namespace) == Nsid::Own {
                self.forget(Nsid::Other(id));
            }
        }
        if dirty.all || dirty.list {
            self.read_list(dirty.all).await?;
        }
        // Quiet sources are read first, because noisy ones may take long.
        let mut links: Vec<_> = dirty.links.iter().collect();
        links.sort_by_key(|(id, links)| {
            let first = links.first().copied().unwrap_or(Ifindex(0));
            self.backoff
                .pause(ChangeSource::of(self.reader.nsid(**id), first))
        });
        for (&id, links) in links {
            self.read_links(self.reader.nsid(id), links).await?;
        }
        for _ in 0..AT_ONCE {
            let Some(nsid) = self.again.pop_first() else {
                break;
            };
            self.read_namespace(nsid).await?;
        }
        Ok(())
    }

    /// Reads the given devices of a namespace, or all of it if there are many.
    async fn read_links(&mut self, nsid: Nsid, links: &BTreeSet<Ifindex>) -> anyhow::Result<()> {
        if links.len() > ONE_BY_ONE || !self.snapshot.namespaces.contains_key(&nsid) {
            self.read_namespace(nsid).await?;
        } else {
            for &ifindex in links {
                self.read_link(nsid, ifindex).await?;
            }
        }
        // The pause starts after the read, so that changes during it are read next.
        let now = Instant::now();
        for &ifindex in links {
            self.backoff.record(ChangeSource::of(nsid, ifindex), now);
        }
        Ok(())
    }

    /// Reads the list of namespaces, and the new ones. If everything must be read, the known ones follow a few per
    /// round, so that a new container does not wait for the last of them.
    async fn read_list(&mut self, all: bool) -> anyhow::Result<()> {
        if all && !self.snapshot.namespaces.is_empty() {
            self.is_lost = true;
            self.again.extend(self.snapshot.namespaces.keys());
        }
        self.give_ids(all).await?;
        let (mut there, whole) = self.reader.namespaces().await?;
        there.insert(Nsid::Own);
        self.retry.want_list(!whole);
        let known: Vec<_> = self.snapshot.namespaces.keys().copied().collect();
        let unlisted = known.into_iter().filter(|nsid| !there.contains(nsid));
        let unlisted: Vec<_> = unlisted.collect();
        for nsid in unlisted {
            match whole {
                true => self.forget(nsid),
                // An incomplete list proves nothing, so the namespace is kept and asked about by its id.
                false => {
                    there.insert(nsid);
                }
            }
        }
        for nsid in there {
            if !self.snapshot.namespaces.contains_key(&nsid) {
                self.read_namespace(nsid).await?;
            }
        }
        Ok(())
    }

    fn forget(&mut self, nsid: Nsid) {
        if let Some(old) = self.snapshot.namespaces.remove(&nsid) {
            self.below.extend(lowers(&old));
            self.differs = true;
        }
        self.again.remove(&nsid);
        self.retry.done(nsid);
        self.backoff.forget(nsid);
    }

    /// Gives an id to the mounted namespaces that have none, or to all of them.
    async fn give_ids(&mut self, all: bool) -> anyhow::Result<()> {
        if all {
            self.mounts.forget();
        }
        for mount in self.mounts.unknown()? {
            // Opening fails if it was unmounted, or is below a directory that we may not enter.
            if let Ok(file) = File::open(&mount.path) {
                self.reader.give_id_to(&file).await?;
                self.mounts.know(mount);
            }
        }
        Ok(())
    }

    async fn read_namespace(&mut self, nsid: Nsid) -> anyhow::Result<()> {
        let read = match self.reader.namespace(nsid).await? {
            Answer::Found(read) => read,
            Answer::Gone => {
                self.forget(nsid);
                return Ok(());
            }
            Answer::Unclear(why) => {
                self.want(nsid, &why, true);
                return Ok(());
            }
        };
        match read.is_whole() {
            true => self.retry.done(nsid),
            false => self.want(nsid, &missing(&read), self.matters(nsid, &read)),
        }
        let old = self.snapshot.namespaces.get(&nsid);
        let new = read.merge_into(old);
        if old != Some(&new) {
            let lowers = old.into_iter().chain([&new]).flat_map(lowers);
            self.below.extend(lowers);
            self.snapshot.namespaces.insert(nsid, new);
            self.differs = true;
        }
        Ok(())
    }

    async fn read_link(&mut self, nsid: Nsid, ifindex: Ifindex) -> anyhow::Result<()> {
        let answer = self.reader.link(nsid, ifindex).await?;
        let read = match answer {
            Answer::Found((link, mut addresses, lacks)) => {
                if !lacks.is_nothing() {
                    let matters = nsid == Nsid::Own || !lacks.is_interrupted();
                    self.want(nsid, &words(&lacks), matters);
                    let known = self.snapshot.namespaces.get(&nsid);
                    let known = known.and_then(|known| known.addresses.get(&ifindex));
                    join(&mut addresses, known.map_or(&[], Vec::as_slice));
                }
                Some((link, addresses))
            }
            Answer::Gone => None,
            Answer::Unclear(why) => {
                self.want(nsid, &why, true);
                return Ok(());
            }
        };
        let Some(namespace) = self.snapshot.namespaces.get_mut(&nsid) else {
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

    /// Whether an incomplete read may hide devices that others depend on. If a known container was only interrupted by
    /// its own changes, all that can be missing is what it has just created.
    fn matters(&self, nsid: Nsid, read: &NamespaceDump) -> bool {
        let is_known = nsid != Nsid::Own && self.snapshot.namespaces.contains_key(&nsid);
        !(is_known && read.links.is_interrupted() && read.addresses.is_interrupted())
    }

    /// Schedules another read of a namespace, and logs that once.
    fn want(&mut self, nsid: Nsid, why: &str, matters: bool) {
        if self.retry.want(nsid, matters) {
            let whose = match nsid {
                Nsid::Own => "our own network namespace".into(),
                Nsid::Other(id) => format!("network namespace {id}"),
            };
            log::info!(
                "failed to read all of {whose} ({why}); what was known of it stays in use until the next complete read"
            );
        }
    }

    /// Reads the lower devices of those that have changed. Changes of a lower device, for example of promiscuous mode,
    /// do not always cause a notification.
    pub(super) async fn read_below(&mut self) -> anyhow::Result<()> {
        let mut all = std::mem::take(&mut self.below);
        let mut tops: Vec<_> = all.iter().copied().collect();
        while let Some(top) = tops.pop() {
            let below = self.snapshot.find(top).and_then(|(_, link)| lower(link));
            tops.extend(below.filter(|below| all.insert(*below)));
        }
        for (nsid, ifindex) in all {
            self.read_link(nsid, ifindex).await?;
        }
        self.below.clear();
        Ok(())
    }
}

fn missing(read: &NamespaceDump) -> String {
    match read.links.is_nothing() {
        true => words(&read.addresses),
        false => words(&read.links),
    }
}

fn words(missing: &Missing) -> String {
    match (missing.why, missing.of.first()) {
        (Some(why), Some(device)) => format!("of device {}: {why}", device.0),
        (Some(why), None) => why.into(),
        (None, _) => "something changed in the meantime".into(),
    }
}

/// Returns the lower device of a link. The peer of a veth does not count as one.
fn lower(link: &Link) -> Option<DeviceId> {
    match link.kind {
        LinkKind::Other | LinkKind::Ipvlan => None,
        LinkKind::Vlan(_) | LinkKind::ServiceVlan | LinkKind::Macvlan(_) | LinkKind::Macvtap(_) => {
            link.lower
        }
    }
}

fn lowers(namespace: &Namespace) -> impl Iterator<Item = DeviceId> {
    namespace.links.values().filter_map(lower)
}

//! The loop's care for who owns an address: it hears who claims one, and asks the wire.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};
use vlanfast_common::{Claim, EndpointKey, Neighbor, NeighborKey, Vid};

use super::Reconciler;
use crate::{
    maps::tables::now,
    netlink::{Known, Netlink},
    reconcile::probe::Asker,
    state::{
        config::{Routes, VlanConfig},
        desired::Tables,
        doubles,
        doubles::Doubles,
        vids::Vids,
        vouching::{Conflict, VALIDITY, Vouching, conflicts, idle},
    },
};

/// How long an attachment waits at most before it says that it is there: for the first answers, of the wire.
const FIRST: Duration = Duration::from_millis(300);

/// What is known of owners.
pub(super) struct Owners {
    /// Asks the kernel about the host's own neighbours.
    kernel: Netlink,
    vouching: Vouching,
    doubles: Doubles,
    claims: BTreeMap<NeighborKey, Claim>,
    /// In the last round.
    pub(super) conflicts: Vec<Conflict>,
    /// Receivers that were there until lately, and when they were seen last: the host may remember them.
    former: BTreeMap<EndpointKey, Duration>,
    /// `None` where the wire can't be asked.
    asker: Option<Asker>,
}

impl Owners {
    pub(super) fn new(wishes: &VlanConfig) -> anyhow::Result<Self> {
        let is_needed = wishes.host_access != Vids::Off || wishes.routes != Routes::None;
        let asker = is_needed.then(Asker::open).transpose().inspect_err(|error| {
            log::warn!(
                "{error:#}: nobody on the wire is asked whether he has a container's address; give CAP_NET_RAW, so \
                 that he is"
            );
        });
        Ok(Self {
            kernel: Netlink::connect()?,
            vouching: Vouching::default(),
            doubles: Doubles::default(),
            claims: BTreeMap::new(),
            conflicts: vec![],
            former: BTreeMap::new(),
            asker: asker.ok().flatten(),
        })
    }

    /// When there is something to do.
    pub(super) fn due(&self) -> Option<Instant> {
        let due = self.vouching.due()?;
        let left = due.saturating_sub(now().unwrap_or_default());
        // Nobody waits for ever.
        Some(Instant::now() + left.min(VALIDITY))
    }

    /// What the host knows of addresses that receivers here have, as claims: from when he was confirmed. Where a receiver
    /// is vouched for, the wire would have told the programs as well.
    fn heard_by_the_host(
        &self,
        known: &[(NeighborKey, Known)],
        tables: &Tables,
        now: Duration,
    ) -> Vec<(NeighborKey, Claim)> {
        let claim = |(key, known): &(NeighborKey, Known)| {
            let key = *key;
            let neighbor = tables.neighbors.get(&key)?;
            let claimant = key.endpoint(known.mac);
            let is_ours = neighbor.mac == known.mac
                || tables.endpoints.contains_key(&claimant)
                || self.former.contains_key(&claimant);
            let claim = Claim {
                heard: now.checked_sub(known.age)?.as_nanos() as u64,
                mac: known.mac,
                reserved: 0,
            };
            let counts = known.age < VALIDITY && !is_ours && !self.vouching.is_vouched(&key);
            counts.then_some((key, claim))
        };
        known.iter().filter_map(claim).collect()
    }
}

/// What the host knows of each VLAN.
fn by_vlan(known: Vec<Known>, tables: &Tables) -> Vec<(NeighborKey, Known)> {
    let vids: BTreeMap<u32, Vid> = tables.vlans.iter().map(|(v, p)| (p.ifindex, *v)).collect();
    let key = |known: Known| {
        let vid = *vids.get(&known.ifindex.0)?;
        Some((NeighborKey::new(vid, known.address), known))
    };
    known.into_iter().filter_map(key).collect()
}

impl Reconciler {
    /// Takes in who claims an address or a MAC of these tables, and forgets the claims that mean nothing; whether
    /// anybody is new or gone. The tables of `before` say how sure each address was.
    pub(super) async fn hear_claims(
        &mut self,
        tables: &Tables,
        before: &Tables,
    ) -> anyhow::Result<bool> {
        let now = now()?;
        let owners = &mut self.owners;
        let receivers = tables.endpoints.keys().map(|key| (*key, now));
        owners.former.extend(receivers);
        owners.former.retain(|_, seen| *seen + VALIDITY > now);
        let mut claims = self.maps.claims()?;
        let matters = tables.vlans.keys().any(|vid| self.wishes.need_owners(*vid));
        if matters {
            let known = by_vlan(owners.kernel.neighbors().await?, tables);
            for (key, claim) in owners.heard_by_the_host(&known, tables, now) {
                // What the programs have heard is newer.
                if let Entry::Vacant(place) = claims.entry(key) {
                    self.maps.set_claim(key, claim)?;
                    place.insert(claim);
                }
            }
            let entries = known.iter().map(|(key, known)| doubles::Entry {
                key: *key,
                mac: known.mac,
                confirmed: now.saturating_sub(known.age),
            });
            for (key, claim) in owners.doubles.heard(entries, before, tables, now) {
                self.maps.set_claim(key, claim)?;
                claims.insert(key, claim);
            }
        }
        let mut idle = idle(&claims, tables, now);
        idle.extend(owners.vouching.refuted(&claims, now));
        self.maps.forget_claims(&idle)?;
        for key in idle {
            claims.remove(&key);
        }
        let who = |claims: &BTreeMap<NeighborKey, Claim>| -> Vec<_> {
            claims
                .iter()
                .map(|(key, claim)| (*key, claim.mac))
                .collect()
        };
        let differs = who(&owners.claims) != who(&claims);
        owners.claims = claims;
        Ok(differs)
    }

    /// Hears who claims an address between two rounds; whether that asks for one. The programs have heard it
    /// before.
    pub(super) async fn listen_for_claims(&mut self) -> bool {
        let installed = std::mem::take(&mut self.installed);
        let heard = self.hear_claims(&installed, &installed).await;
        self.installed = installed;
        let differs = heard.unwrap_or_else(|error| {
            log::warn!("{error:#}; trying again");
            false
        });
        self.behind |= differs;
        differs
    }

    /// Says of each address in these tables how sure it is.
    pub(super) fn judge(&mut self, tables: &mut Tables) -> anyhow::Result<()> {
        let Owners {
            vouching,
            claims,
            asker,
            ..
        } = &mut self.owners;
        let matters = |vid| asker.is_some() && self.wishes.need_owners(vid);
        doubles::mark(tables, claims);
        vouching.judge(tables, claims, matters, now()?);
        let conflicts: Vec<_> = conflicts(tables, claims).collect();
        for conflict in &conflicts {
            if !self.owners.conflicts.contains(conflict) {
                log::warn!("{conflict}; take it from one of them");
            }
        }
        self.owners.conflicts = conflicts;
        Ok(())
    }

    /// Asks the wire for whatever is to be asked for by now; whether an answer is due, so that a round is.
    pub(super) fn ask(&mut self) -> anyhow::Result<bool> {
        let now = now()?;
        let owners = &mut self.owners;
        let questions = owners.vouching.questions(now);
        let senders = match questions.is_empty() {
            true => BTreeMap::new(),
            false => link_locals(&self.installed),
        };
        for key in questions {
            let parent = self.installed.vlans.get(&key.vid());
            if let (Some(asker), Some(parent)) = (&owners.asker, parent)
                // A device that is down is up again with a round of its own.
                && let Err(error) = asker.ask(parent, &key, senders.get(&key.vid).copied())
            {
                log::debug!("failed to ask for {}: {error}", key.address());
            }
        }
        let is_ripe = owners.vouching.is_ripe(now);
        self.behind |= is_ripe;
        Ok(is_ripe)
    }

    /// Waits for the first answers: who has attached can then use what is sure.
    pub async fn vouch(&mut self) -> anyhow::Result<()> {
        let end = Instant::now() + FIRST;
        while let Some(due) = self.owners.due().filter(|due| *due < end) {
            sleep_until(due).await;
            if self.ask()? {
                self.follow().await?;
            }
        }
        Ok(())
    }
}

/// The host's own link-local addresses by VLAN, from which it can ask.
fn link_locals(tables: &Tables) -> BTreeMap<u16, Ipv6Addr> {
    let first = NeighborKey::new(
        Vid::UNTAGGED,
        Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0).into(),
    );
    let all = tables.neighbors.range(first..);
    let link_local = |(key, neighbor): (&NeighborKey, &Neighbor)| match key.address() {
        IpAddr::V6(address) if address.is_unicast_link_local() => {
            let parent = tables.vlans.get(&key.vid())?;
            (key.vid == key.vid().get() && neighbor.mac == parent.mac).then_some((key.vid, address))
        }
        _ => None,
    };
    all.filter_map(link_local).collect()
}

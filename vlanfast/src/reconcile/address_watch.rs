//! Watches for address conflicts: reads claims from the map `CLAIMS` and the neighbour tables, and probes the wire.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};
use vlanfast_common::{Claim, NeighborKey};

use crate::{
    maps::tables::now,
    reconcile::{
        Reconciler,
        owners::{Owners, by_vlan, link_locals},
    },
    state::{
        claims::{VALIDITY, conflicts, idle},
        mac_conflicts,
        tables::DesiredTables,
    },
};

/// How long an attachment waits at most for the first answers from the wire before it reports that it is ready.
const FIRST: Duration = Duration::from_millis(300);

impl Reconciler {
    /// Collects the claims on addresses and MACs of these tables from the map `CLAIMS` and the host's neighbour tables,
    /// and removes those that no longer matter. Returns whether the claimants differ from those of the last call. The
    /// tables of `before` say how certain each address was.
    pub(super) async fn collect_claims(
        &mut self,
        tables: &DesiredTables,
        before: &DesiredTables,
    ) -> anyhow::Result<bool> {
        let now = now()?;
        let owners = &mut self.owners;
        let receivers = tables.endpoints.keys().map(|key| (*key, now));
        owners.former.extend(receivers);
        owners.former.retain(|_, seen| *seen + VALIDITY > now);
        let mut claims = self.maps.claims()?;
        let matters = tables.vlans.keys().any(|vid| self.config.need_owners(*vid));
        if matters {
            let known = by_vlan(owners.kernel.neighbors().await?, tables);
            for (key, claim) in owners.host_claims(&known, tables, now) {
                // A claim that the programs recorded is newer.
                if let Entry::Vacant(place) = claims.entry(key) {
                    self.maps.set_claim(key, claim)?;
                    place.insert(claim);
                }
            }
            let entries = known.iter().map(|(key, known)| mac_conflicts::Entry {
                key: *key,
                mac: known.mac,
                confirmed: now.saturating_sub(known.age),
            });
            for (key, claim) in owners.mac_conflicts.detect(entries, before, tables, now) {
                self.maps.set_claim(key, claim)?;
                claims.insert(key, claim);
            }
        }
        let mut idle = idle(&claims, tables, now);
        idle.extend(owners.probes.refuted(&claims, now));
        self.maps.forget_claims(&idle)?;
        for key in idle {
            claims.remove(&key);
        }
        let claimants = |claims: &BTreeMap<NeighborKey, Claim>| -> Vec<_> {
            claims
                .iter()
                .map(|(key, claim)| (*key, claim.mac))
                .collect()
        };
        let differs = claimants(&owners.claims) != claimants(&claims);
        owners.claims = claims;
        Ok(differs)
    }

    /// Collects the claims between two rounds, and returns whether they require a new round. The programs have taken
    /// them into account already.
    pub(super) async fn poll_claims(&mut self) -> bool {
        let installed = std::mem::take(&mut self.installed);
        let heard = self.collect_claims(&installed, &installed).await;
        self.installed = installed;
        let differs = heard.unwrap_or_else(|error| {
            log::warn!("{error:#}; trying again");
            false
        });
        self.behind |= differs;
        differs
    }

    /// Marks in the tables how certain each address is.
    pub(super) fn assess_addresses(&mut self, tables: &mut DesiredTables) -> anyhow::Result<()> {
        let Owners {
            probes,
            claims,
            socket,
            ..
        } = &mut self.owners;
        let matters = |vid| socket.is_some() && self.config.need_owners(vid);
        mac_conflicts::mark(tables, claims);
        probes.assess(tables, claims, matters, now()?);
        let conflicts: Vec<_> = conflicts(tables, claims).collect();
        for conflict in &conflicts {
            if !self.owners.conflicts.contains(conflict) {
                log::warn!("{conflict}; take it from one of them");
            }
        }
        self.owners.conflicts = conflicts;
        Ok(())
    }

    /// Sends the probes that are due, and returns whether the time for an answer has passed, so that a round is due.
    pub(super) fn send_probes(&mut self) -> anyhow::Result<bool> {
        let now = now()?;
        let owners = &mut self.owners;
        let due = owners.probes.take_due(now);
        let senders = match due.is_empty() {
            true => BTreeMap::new(),
            false => link_locals(&self.installed),
        };
        for key in due {
            let parent = self.installed.vlans.get(&key.vid());
            if let (Some(socket), Some(parent)) = (&owners.socket, parent)
                // A device that is down causes a new round when it comes up.
                && let Err(error) = socket.probe(parent, &key, senders.get(&key.vid).copied())
            {
                log::debug!("failed to ask for {}: {error}", key.address());
            }
        }
        let is_ripe = owners.probes.is_ripe(now);
        self.behind |= is_ripe;
        Ok(is_ripe)
    }

    /// Waits for the first answers, so that confirmed addresses can be used as soon as the attachment is ready.
    pub async fn await_probes(&mut self) -> anyhow::Result<()> {
        let end = Instant::now() + FIRST;
        while let Some(due) = self.owners.due().filter(|due| *due < end) {
            sleep_until(due).await;
            if self.send_probes()? {
                self.follow().await?;
            }
        }
        Ok(())
    }
}

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

/// How long an attachment waits at most before it says that it is there: for the first answers, of the wire.
const FIRST: Duration = Duration::from_millis(300);

impl Reconciler {
    /// Takes in who claims an address or a MAC of these tables, and forgets the claims that mean nothing; whether
    /// anybody is new or gone. The tables of `before` say how sure each address was.
    pub(super) async fn hear_claims(
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
            let entries = known.iter().map(|(key, known)| mac_conflicts::Entry {
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
    pub(super) fn judge(&mut self, tables: &mut DesiredTables) -> anyhow::Result<()> {
        let Owners {
            vouching,
            claims,
            asker,
            ..
        } = &mut self.owners;
        let matters = |vid| asker.is_some() && self.wishes.need_owners(vid);
        mac_conflicts::mark(tables, claims);
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

//! Watches for receivers that are not devices, or whose devices are in namespaces that are not seen.

use std::time::Duration;

use tokio::time::Instant;
use vlanfast_common::{Parent, Shed};

use crate::reconcile::Reconciler;

/// The shortest and the longest pause between two searches through all processes. It doubles as long as nothing is
/// found.
const SHORT: Duration = Duration::from_secs(2);
const LONG: Duration = Duration::from_secs(60);

impl Reconciler {
    /// Follows the devices whose receivers are watched.
    pub(super) async fn follow_receivers(&mut self) -> anyhow::Result<()> {
        let snapshot = self.netlink.snapshot();
        let found = self
            .packet_receivers
            .follow(snapshot, self.trunk, &self.pins)
            .await?;
        self.netlink.update_receivers(found);
        Ok(())
    }

    /// Reads the receivers, and returns whether they have changed.
    pub(super) async fn poll_receivers(&mut self) -> anyhow::Result<bool> {
        let snapshot = self.netlink.snapshot();
        let found = self
            .packet_receivers
            .look(snapshot, self.trunk, &self.pins)
            .await?;
        let differs = self.netlink.update_receivers(found);
        self.behind |= differs;
        self.search_while_unseen().await?;
        Ok(differs)
    }

    /// Searches for the namespaces of receivers that have no visible device. If frames are shed, it searches now and
    /// then in any case: a VLAN device inside such a namespace has the trunk's MAC and is on no list.
    async fn search_while_unseen(&mut self) -> anyhow::Result<()> {
        let mut vlans = self.installed.vlans.values();
        let is_unseen = vlans.any(|parent| parent.has(Parent::UNSEEN));
        if !is_unseen && self.maps.settings()?.policy.shed == Shed::Off as u32 {
            self.search.next = None;
            return Ok(());
        }
        // After a new receiver appears, the first search is immediate.
        let start = if is_unseen { SHORT } else { LONG };
        let next = self
            .search
            .next
            .filter(|_| is_unseen == self.search.for_unseen);
        let (at, pause) = next.unwrap_or((Instant::now(), start));
        self.search.for_unseen = is_unseen;
        self.search.next = Some((at, pause));
        if Instant::now() < at {
            return Ok(());
        }
        self.search.next = Some((at + pause, LONG.min(2 * pause)));
        self.search(is_unseen).await
    }

    /// Searches all processes once.
    pub(super) async fn search(&mut self, is_unseen: bool) -> anyhow::Result<()> {
        let is_whole = self.netlink.search().await?;
        let in_vain = is_unseen && self.search.next.is_some_and(|(_, pause)| pause == LONG);
        if in_vain && !is_whole && !self.search.warned {
            self.search.warned = true;
            log::warn!(
                "a receiver is in a network namespace that is not visible, and without CAP_SYS_PTRACE not every process \
                 can be searched for it: vlanfast leaves the frames alone that it may want"
            );
        }
        Ok(())
    }
}

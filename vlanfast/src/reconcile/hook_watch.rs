//! Watches the hooks: the part of the loop that checks whether the programs are still attached.

use vlanfast_common::Parent;

use crate::{
    error::Error,
    hooks,
    hooks::{Watch, offloads},
    netlink::Netlink,
    reconcile::{Reconciler, are_pins_gone, is_gone},
    state::{snapshot::Nsid, tables::Desired},
};

impl Reconciler {
    /// Checks the hooks, and returns whether anything has changed. If they cannot be read, their last known state is
    /// kept and the rest of the loop goes on. If netlink does not answer, the tables count as stale.
    pub(super) async fn watch_hooks(&mut self, kernel: &Netlink) -> anyhow::Result<bool> {
        let seen = self.check_hooks(kernel).await;
        let was_silent = self.is_silent;
        self.is_silent = seen.as_ref().is_err_and(is_silence);
        match seen {
            // After silence, the tables are read once more as well.
            Ok(differs) => Ok(differs || was_silent),
            Err(error) if is_gone(&error) || are_pins_gone(&error) => Err(error),
            Err(error) => {
                log::warn!("{error:#}; trying again");
                if self.is_silent {
                    self.freshness.mark_stale();
                }
                Ok(was_silent && !self.is_silent)
            }
        }
    }

    /// Checks the hooks, repairs our own attachments, and returns whether anything has changed.
    pub(super) async fn check_hooks(&mut self, kernel: &Netlink) -> anyhow::Result<bool> {
        // Programs at VLAN devices are attached again in the round that follows.
        let taken = self
            .parents
            .as_mut()
            .is_some_and(hooks::Parents::drop_detached);
        self.behind |= taken;
        let Some(watch) = &mut self.watch else {
            return Ok(taken);
        };
        let looked = watch.look(kernel, &self.pins, &mut self.maps, self.trunk.0);
        let mut differs = looked.await?;
        if differs {
            self.hooks = watch.published(self.maps.settings()?.ingress_reason);
        }
        differs |= self.poll_receivers().await?;
        Ok(differs || taken)
    }

    /// Whether a driver's offload strips the tags before XDP sees them, which makes tables by VLAN useless.
    pub(super) fn hides_tags(&mut self) -> bool {
        let link = self.netlink.snapshot().find((Nsid::Own, self.trunk));
        let Some(trunk) = link.map(|(_, link)| &link.name) else {
            return self.tags_hidden;
        };
        let by_xdp = self.watch.as_ref().is_some_and(Watch::is_by_xdp);
        // If the device cannot be read, its last known state is kept.
        let hides = by_xdp && offloads::strips_tags(trunk).unwrap_or(self.tags_hidden);
        if hides && !self.tags_hidden {
            log::warn!(
                "{trunk} strips VLAN tags before XDP sees them, because rx-vlan-offload was turned on: every frame is \
                 passed until `ethtool -K {trunk} rxvlan off`"
            );
        }
        self.tags_hidden = hides;
        hides
    }

    /// Attaches the shortcut's programs to the VLANs' own devices, and returns false if that has to be repeated.
    pub(super) fn attach_parents(&mut self, desired: &mut Desired) -> bool {
        let Some(parents) = &mut self.parents else {
            return true;
        };
        let followed = parents.follow(&desired.senders());
        if let Err(error) = &followed {
            log::warn!("{error:#}; on that VLAN the shortcut begins at the trunk");
        }
        for parent in desired.tables.vlans.values_mut() {
            if parents.has(parent.ifindex) {
                parent.flags |= Parent::PROGRAM;
            }
        }
        followed.is_ok()
    }
}

fn is_silence(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(Error::Silent { .. }))
}

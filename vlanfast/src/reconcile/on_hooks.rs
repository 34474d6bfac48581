//! The loop's eye on the hooks.

use super::{Reconciler, are_pins_gone, is_gone};
use crate::{datapath::hooks, error::Error, netlink::Netlink};

impl Reconciler {
    /// Looks at the hooks; whether anything is other than it was. That they can't be read keeps nobody from
    /// following the rest: they stay as they were seen. But where netlink is silent, nothing is sure any more.
    pub(super) async fn watch_hooks(&mut self, kernel: &Netlink) -> anyhow::Result<bool> {
        let seen = self.look_at_hooks(kernel).await;
        let was_silent = self.is_silent;
        self.is_silent = seen.as_ref().is_err_and(is_silence);
        match seen {
            // The tables are looked at once more as well.
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

    /// Looks at the hooks, and repairs what is ours to repair; whether anything is other than it was.
    pub(super) async fn look_at_hooks(&mut self, kernel: &Netlink) -> anyhow::Result<bool> {
        // Those of VLAN devices are put back with the round that follows.
        let taken = self.parents.as_mut().is_some_and(hooks::Parents::doubt);
        self.behind |= taken;
        let Some(watch) = &mut self.watch else {
            return Ok(taken);
        };
        let looked = watch.look(kernel, &self.pins, &mut self.maps, self.trunk.0);
        let differs = looked.await?;
        if differs {
            self.hooks = watch.published(self.maps.settings()?.ingress_reason);
        }
        Ok(differs || taken)
    }
}

fn is_silence(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(Error::Silent { .. }))
}

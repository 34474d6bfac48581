//! Looks at the hooks again and again, because others use them as well and may take our program off or put theirs
//! before it. A program of ours that is missing is put back; everything else is reported.

use std::{os::fd::AsFd, time::Instant};

use anyhow::Context;
use vlanfast_common::{Direction, IngressReason};

use crate::{
    error::Error,
    hooks::{
        backoff::RepairBackoff,
        bpf_syscall,
        clsact::{add_clsact, lacks_clsact},
        device::Trunk,
        inspect::{Observed, inspect},
        kind::{AttachKind, hook_name},
        place::Placement,
    },
    maps::tables::TableMaps,
    netlink::Netlink,
    pins::{Pins, SETTINGS},
    state::report::HookState,
};

/// Both hooks of a trunk, as they were when we looked last.
#[derive(Debug)]
pub struct Watch {
    hooks: Vec<Watched>,
}

#[derive(Debug)]
struct Watched {
    hook: Direction,
    /// How our program was attached.
    mode: AttachKind,
    backoff: RepairBackoff,
    observed: Observed,
}

impl Watch {
    /// Watches hooks that were attached in these ways. The first look shows whether they still are.
    pub fn of(hooks: [(Direction, AttachKind); 2]) -> Self {
        let watched = |(hook, mode)| Watched {
            hook,
            mode,
            backoff: RepairBackoff::default(),
            observed: Observed {
                kind: Some(mode),
                preceded_by: vec![],
            },
        };
        Self {
            hooks: hooks.map(watched).into(),
        }
    }

    /// Looks at both hooks and makes the repairs that are due. Returns whether anything has changed.
    pub async fn look(
        &mut self,
        netlink: &Netlink,
        pins: &Pins,
        maps: &mut TableMaps,
        ifindex: u32,
    ) -> anyhow::Result<bool> {
        let trunk = find(netlink, pins, ifindex).await?;
        if !pins.exist() || !pins.has(&pins.path(SETTINGS))? {
            return Err(Error::PinsGone {
                trunk: trunk.name.to_string(),
            }
            .into());
        }
        let placement = Placement {
            netlink,
            trunk: &trunk,
            pins,
        };
        let mut differs = false;
        for watched in &mut self.hooks {
            differs |= watched.look(placement, maps).await?;
        }
        Ok(differs)
    }

    /// Whether ingress is read by XDP.
    pub fn is_by_xdp(&self) -> bool {
        self.hooks.iter().any(|watched| watched.mode.is_xdp())
    }

    /// The hooks for metrics. `reason` is the [`IngressReason`] of `SETTINGS`.
    pub fn published(&self, reason: u32) -> Vec<HookState> {
        let reason = IngressReason::from_number(reason).map_or("unknown", IngressReason::name);
        let hook = |watched: &Watched| HookState {
            hook: hook_name(watched.hook),
            mode: watched.observed.kind.unwrap_or(watched.mode).as_str(),
            reason: match watched.hook {
                Direction::Rx => reason,
                Direction::Tx => "",
            },
            attached: watched.observed.kind.is_some(),
            preceded_by: watched.observed.preceded_by.clone(),
        };
        self.hooks.iter().map(hook).collect()
    }
}

async fn find(netlink: &Netlink, pins: &Pins, ifindex: u32) -> anyhow::Result<Trunk> {
    let gone = || Error::TrunkGone {
        trunk: pins.trunk.to_string(),
    };
    let found = Trunk::of_index(netlink, ifindex).await?;
    found.ok_or_else(|| gone().into())
}

impl Watched {
    async fn look(
        &mut self,
        placement: Placement<'_>,
        maps: &mut TableMaps,
    ) -> anyhow::Result<bool> {
        let Placement {
            netlink,
            trunk,
            pins,
        } = placement;
        let mut observed = inspect(netlink, trunk, pins, self.hook).await?;
        let now = Instant::now();
        match observed.kind {
            Some(_) => self.backoff.record_attached(now),
            None if self.backoff.is_due(now) => {
                self.backoff.record(now);
                let repaired = self.repair(placement, maps).await;
                self.log_repair(trunk, &repaired);
                observed = inspect(netlink, trunk, pins, self.hook).await?;
            }
            None => {}
        }
        let old = std::mem::replace(&mut self.observed, observed);
        self.log_preceding(trunk, &old);
        Ok(self.observed != old)
    }

    /// Attaches the program that is pinned for the hook again.
    async fn repair(&self, placement: Placement<'_>, maps: &mut TableMaps) -> anyhow::Result<()> {
        let Placement {
            netlink,
            trunk,
            pins,
        } = placement;
        let program = bpf_syscall::open(&pins.program(self.hook)).with_context(|| {
            let hook = hook_name(self.hook);
            format!("failed to open the program pinned for {hook}")
        })?;
        if self.mode == AttachKind::Clsact && lacks_clsact(netlink, trunk).await? {
            maps.update_settings(|settings| settings.made_clsact = 1)?;
            add_clsact(netlink, trunk).await?;
        }
        placement.put(self.hook, self.mode, program.as_fd()).await
    }

    fn log_repair(&self, trunk: &Trunk, repaired: &anyhow::Result<()>) {
        let (trunk, hook) = (&trunk.name, hook_name(self.hook));
        match repaired {
            Ok(()) => log::warn!(
                "{trunk}: somebody took our program off {hook}; it was put back, and packets in between were not \
                 counted"
            ),
            Err(error) => log::warn!(
                "{trunk}: somebody took our program off {hook}, and it can't be put back: {error:#}"
            ),
        }
        if self.backoff.has_given_up() {
            log::warn!(
                "{trunk}: our program was taken off {hook} too often, and vlanfast will not put it back again: end \
                 what takes it off, then run `vlanfast detach {trunk}` and attach again"
            );
        }
    }

    fn log_preceding(&self, trunk: &Trunk, old: &Observed) {
        let preceding = &self.observed.preceded_by;
        if *preceding != old.preceded_by && !preceding.is_empty() {
            log::warn!(
                "{}: {} runs before our program at {}: packets that it drops or redirects are not counted",
                trunk.name,
                preceding.join(", "),
                hook_name(self.hook)
            );
        }
    }
}

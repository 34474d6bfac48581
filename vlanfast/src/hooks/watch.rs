//! The hooks, looked at again and again: others use them as well, and may take our program off or put
//! theirs before it. What is ours to repair is repaired; the rest is said.

use std::time::Instant;

use vlanfast_common::{Direction, IngressReason};

use crate::{
    error::Error,
    hooks::{Kind, Seen, attach::repair, device::Trunk, look, name, repairs::Repairs},
    maps::tables::Maps,
    netlink::Netlink,
    pins::{Pins, SETTINGS},
    state::report::HookState,
};

/// Both hooks of a trunk, as they were seen last.
#[derive(Debug)]
pub struct Watch {
    hooks: Vec<Watched>,
}

#[derive(Debug)]
struct Watched {
    hook: Direction,
    /// How our program was attached.
    mode: Kind,
    repairs: Repairs,
    seen: Seen,
}

impl Watch {
    /// For hooks that were attached so; the first look shows whether they still are.
    pub fn of(hooks: [(Direction, Kind); 2]) -> Self {
        let watched = |(hook, mode)| Watched {
            hook,
            mode,
            repairs: Repairs::default(),
            seen: Seen {
                kind: Some(mode),
                before: vec![],
            },
        };
        Self {
            hooks: hooks.map(watched).into(),
        }
    }

    /// Looks again, and repairs what it is time to repair; whether anything is other than it was.
    pub async fn look(
        &mut self,
        netlink: &Netlink,
        pins: &Pins,
        maps: &mut Maps,
        ifindex: u32,
    ) -> anyhow::Result<bool> {
        let trunk = find(netlink, pins, ifindex).await?;
        if !pins.exist() || !pins.has(&pins.path(SETTINGS))? {
            return Err(Error::PinsGone {
                trunk: trunk.name.to_string(),
            }
            .into());
        }
        let mut differs = false;
        for watched in &mut self.hooks {
            differs |= watched.look(netlink, &trunk, pins, maps).await?;
        }
        Ok(differs)
    }

    /// Whether ingress is read by XDP.
    pub fn is_by_xdp(&self) -> bool {
        self.hooks.iter().any(|watched| watched.mode.is_xdp())
    }

    /// For metrics; the reason is that of ingress.
    pub fn published(&self, reason: u32) -> Vec<HookState> {
        let reason = IngressReason::from_number(reason).map_or("unknown", IngressReason::name);
        let hook = |watched: &Watched| HookState {
            hook: name(watched.hook),
            mode: watched.seen.kind.unwrap_or(watched.mode).as_str(),
            reason: match watched.hook {
                Direction::Rx => reason,
                Direction::Tx => "",
            },
            attached: watched.seen.kind.is_some(),
            preceded_by: watched.seen.before.clone(),
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
        netlink: &Netlink,
        trunk: &Trunk,
        pins: &Pins,
        maps: &mut Maps,
    ) -> anyhow::Result<bool> {
        let mut seen = look(netlink, trunk, pins, self.hook).await?;
        let now = Instant::now();
        match seen.kind {
            Some(_) => self.repairs.is_fine(now),
            None if self.repairs.are_due(now) => {
                self.repairs.tried(now);
                let wanted = (self.hook, self.mode);
                let repaired = repair(netlink, trunk, pins, maps, wanted).await;
                self.say_repaired(trunk, &repaired);
                seen = look(netlink, trunk, pins, self.hook).await?;
            }
            None => {}
        }
        let old = std::mem::replace(&mut self.seen, seen);
        self.say(trunk, &old);
        Ok(self.seen != old)
    }

    fn say_repaired(&self, trunk: &Trunk, repaired: &anyhow::Result<()>) {
        let (trunk, hook) = (&trunk.name, name(self.hook));
        let are_given_up = self.repairs.are_given_up();
        match repaired {
            Ok(()) => log::warn!(
                "{trunk}: somebody took our program off {hook}; it was put back, and what passed meanwhile \
                 was not counted"
            ),
            Err(error) => log::warn!(
                "{trunk}: somebody took our program off {hook}, and it can't be put back: {error:#}"
            ),
        }
        if are_given_up {
            log::warn!(
                "{trunk}: that was the last try at {hook}, because it goes on and on; end what takes \
                 our program off, then run `vlanfast detach {trunk}` and attach it anew if it is missing"
            );
        }
    }

    fn say(&self, trunk: &Trunk, old: &Seen) {
        let before = &self.seen.before;
        if *before != old.before && !before.is_empty() {
            log::warn!(
                "{}: {} runs before our program at {}: what it keeps to itself is neither counted nor \
                 decided about",
                trunk.name,
                before.join(", "),
                name(self.hook)
            );
        }
    }
}

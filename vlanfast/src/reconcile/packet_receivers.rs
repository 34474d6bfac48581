//! Polls for receivers on the trunk and its VLAN devices, because the kernel notifies nobody of most changes to them.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use anyhow::Context;
use vlanfast_common::Direction;

use crate::{
    hooks,
    hooks::bpf_syscall,
    netlink::{
        HookEvents, Netlink,
        packet_receivers::{List, Sockets, groups, sockets},
    },
    pins::Pins,
    state::{
        hidden_receivers::{parents, unexplained},
        snapshot::{Ifindex, Receivers, Snapshot},
    },
};

/// Of the VLAN devices, this part is asked at each look, so that each has its turn within a minute.
const TURNS: usize = 30;
/// A group counts once it has been there for as long: before an address is in use, its group is joined
/// (RFC 4862 clause 5.4.2).
const RIPE: Duration = Duration::from_secs(5);

/// What was found so far.
pub struct PacketReceivers {
    kernel: Netlink,
    has_tcx: bool,
    found: BTreeMap<Ifindex, Found>,
    sockets: Sockets,
    /// Devices to be asked at the next look, because something has happened to them.
    doubtful: BTreeSet<Ifindex>,
    /// Whose turn was last.
    last: Ifindex,
}

#[derive(Default)]
struct Found {
    list: List,
    /// Since when each group has been there.
    groups: BTreeMap<u32, Instant>,
    filters: bool,
}

impl PacketReceivers {
    pub fn open() -> anyhow::Result<Self> {
        Ok(Self {
            kernel: Netlink::connect()?,
            has_tcx: bpf_syscall::has_tcx(),
            found: BTreeMap::new(),
            sockets: Sockets::default(),
            doubtful: BTreeSet::new(),
            last: Ifindex(0),
        })
    }

    /// Takes in what has happened to hooks; whether that may be of a device that is asked.
    pub fn mark_stale(&mut self, events: &HookEvents) -> bool {
        let asked = self.found.keys().copied();
        let some: Vec<_> = asked.filter(|it| events.may_be_of(*it)).collect();
        self.doubtful.extend(&some);
        !some.is_empty()
    }

    /// Follows devices that come and go. What nobody explains any more may have gone with them, so it is asked about
    /// once more.
    pub async fn follow(
        &mut self,
        network: &Snapshot,
        trunk: Ifindex,
        pins: &Pins,
    ) -> anyhow::Result<BTreeMap<Ifindex, Receivers>> {
        let parents = parents(network, trunk);
        let is_first = self.found.is_empty();
        self.found.retain(|ifindex, _| parents.contains(ifindex));
        let new: Vec<_> = parents
            .into_iter()
            .filter(|it| !self.found.contains_key(it))
            .collect();
        if is_first {
            self.sockets = sockets()?;
        }
        self.ask(new, trunk, pins).await?;
        let unclear = unexplained(network, &self.receivers(trunk));
        self.ask(unclear, trunk, pins).await?;
        Ok(self.receivers(trunk))
    }

    /// Asks the trunk, and some of the VLAN devices in turn. The trunk's list has what is in theirs, so where it has
    /// something new all of them are asked.
    pub async fn look(
        &mut self,
        network: &Snapshot,
        trunk: Ifindex,
        pins: &Pins,
    ) -> anyhow::Result<BTreeMap<Ifindex, Receivers>> {
        let before = self.receivers(trunk).remove(&trunk);
        self.sockets = sockets()?;
        let mut some = std::mem::take(&mut self.doubtful);
        some.extend(self.in_turn());
        some.insert(trunk);
        self.ask(some, trunk, pins).await?;
        let found = self.receivers(trunk);
        let unclear = unexplained(network, &found);
        if unclear.contains(&trunk) && found.get(&trunk) != before.as_ref() {
            let all: Vec<_> = self.found.keys().copied().collect();
            self.ask(all, trunk, pins).await?;
        }
        self.follow(network, trunk, pins).await
    }

    /// The devices whose turn it is.
    fn in_turn(&mut self) -> Vec<Ifindex> {
        let count = self.found.len().div_ceil(TURNS);
        let (upper, lower) = (self.last.0 + 1, self.last.0);
        let rest = self.found.range(Ifindex(upper)..);
        let again = self.found.range(..=Ifindex(lower));
        let turn = rest.chain(again).map(|(ifindex, _)| *ifindex);
        let turn: Vec<_> = turn.take(count).collect();
        self.last = turn.last().copied().unwrap_or(self.last);
        turn
    }

    async fn ask(
        &mut self,
        devices: impl IntoIterator<Item = Ifindex>,
        trunk: Ifindex,
        pins: &Pins,
    ) -> anyhow::Result<()> {
        let mut devices = devices.into_iter().peekable();
        if devices.peek().is_none() {
            return Ok(());
        }
        let ours = hooks::program_ids(pins)?;
        let joined = groups()?;
        for ifindex in devices {
            // It is gone, as netlink will say.
            let Some(list) = self.kernel.list(ifindex).await? else {
                self.found.remove(&ifindex);
                continue;
            };
            let filters = self.is_filtered(ifindex, trunk, &ours).await?;
            let now = Instant::now();
            let known = |device| self.found.get(&device).map(|found| &found.groups);
            let since = |group| {
                // What the trunk has known for a while is not new on the VLAN device that it comes from.
                let known = [ifindex, trunk].map(|device| known(device)?.get(group).copied());
                known.into_iter().flatten().min().unwrap_or(now)
            };
            let groups = joined.get(&ifindex).into_iter().flatten();
            let groups = groups.map(|it| (*it, since(it))).collect();
            let found = Found {
                list,
                groups,
                filters,
            };
            self.found.insert(ifindex, found);
        }
        Ok(())
    }

    /// Whether others' filters or programs may take frames of a device. XDP on the trunk has its frames before we
    /// do, whatever we do to them.
    async fn is_filtered(
        &self,
        ifindex: Ifindex,
        trunk: Ifindex,
        ours: &[u32],
    ) -> anyhow::Result<bool> {
        if self.kernel.is_filtered(ifindex, ours).await? {
            return Ok(true);
        }
        if self.has_tcx {
            let programs = match bpf_syscall::tcx_programs(ifindex.0, Direction::Rx) {
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => vec![],
                programs => programs.with_context(|| {
                    format!("failed to list the tcx programs of device {}", ifindex.0)
                })?,
            };
            if programs.iter().any(|id| !ours.contains(id)) {
                return Ok(true);
            }
        }
        let device = match ifindex == trunk {
            true => None,
            false => self.kernel.link_of(ifindex).await?,
        };
        Ok(device.is_some_and(|device| device.xdp.is_some()))
    }

    fn receivers(&self, trunk: Ifindex) -> BTreeMap<Ifindex, Receivers> {
        let now = Instant::now();
        let of = |(&ifindex, found): (&Ifindex, &Found)| {
            let groups = found.groups.iter();
            let ripe = groups.filter(|(_, since)| now.duration_since(**since) >= RIPE);
            let receivers = Receivers {
                unicast: found.list.clone(),
                solicited: ripe.map(|(group, _)| *group).collect(),
                filters: found.filters,
                sockets: self.sockets.devices.contains(&ifindex)
                    || self.sockets.all && ifindex == trunk,
            };
            (ifindex, receivers)
        };
        self.found.iter().map(of).collect()
    }
}

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

/// The fraction of the VLAN devices that is read at each check, so that every device is read within a minute.
const TURNS: usize = 30;
/// How long a multicast group must have been joined before it counts. A host joins the group of an address before it
/// uses the address (RFC 4862 clause 5.4.2).
const RIPE: Duration = Duration::from_secs(5);

/// The receivers that were found so far.
pub struct PacketReceivers {
    kernel: Netlink,
    has_tcx: bool,
    found: BTreeMap<Ifindex, Found>,
    sockets: Sockets,
    /// Devices to read at the next check, because an event named them.
    stale: BTreeSet<Ifindex>,
    /// The last device that was read in turn.
    last: Ifindex,
}

#[derive(Default)]
struct Found {
    list: List,
    /// When each group was first seen.
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
            stale: BTreeSet::new(),
            last: Ifindex(0),
        })
    }

    /// Records events about hooks, and returns whether one of them may concern a device that is watched.
    pub fn mark_stale(&mut self, events: &HookEvents) -> bool {
        let asked = self.found.keys().copied();
        let some: Vec<_> = asked.filter(|it| events.may_be_of(*it)).collect();
        self.stale.extend(&some);
        !some.is_empty()
    }

    /// Adds new devices and removes those that are gone. Receivers that no device explains any more may be gone too, so
    /// they are read once more.
    pub async fn follow(
        &mut self,
        snapshot: &Snapshot,
        trunk: Ifindex,
        pins: &Pins,
    ) -> anyhow::Result<BTreeMap<Ifindex, Receivers>> {
        let parents = parents(snapshot, trunk);
        let is_first = self.found.is_empty();
        self.found.retain(|ifindex, _| parents.contains(ifindex));
        let new: Vec<_> = parents
            .into_iter()
            .filter(|it| !self.found.contains_key(it))
            .collect();
        if is_first {
            self.sockets = sockets()?;
        }
        self.read(new, trunk, pins).await?;
        let unclear = unexplained(snapshot, &self.receivers(trunk));
        self.read(unclear, trunk, pins).await?;
        Ok(self.receivers(trunk))
    }

    /// Reads the trunk, and some of the VLAN devices in turn. The trunk's list includes those of the VLAN devices, so
    /// if it has something new, all of them are read.
    pub async fn look(
        &mut self,
        snapshot: &Snapshot,
        trunk: Ifindex,
        pins: &Pins,
    ) -> anyhow::Result<BTreeMap<Ifindex, Receivers>> {
        let before = self.receivers(trunk).remove(&trunk);
        self.sockets = sockets()?;
        let mut some = std::mem::take(&mut self.stale);
        some.extend(self.in_turn());
        some.insert(trunk);
        self.read(some, trunk, pins).await?;
        let found = self.receivers(trunk);
        let unclear = unexplained(snapshot, &found);
        if unclear.contains(&trunk) && found.get(&trunk) != before.as_ref() {
            let all: Vec<_> = self.found.keys().copied().collect();
            self.read(all, trunk, pins).await?;
        }
        self.follow(snapshot, trunk, pins).await
    }

    /// Returns the devices whose turn it is.
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

    async fn read(
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
            // The device is gone, as a netlink event will tell.
            let Some(list) = self.kernel.list(ifindex).await? else {
                self.found.remove(&ifindex);
                continue;
            };
            let filters = self.is_filtered(ifindex, trunk, &ours).await?;
            let now = Instant::now();
            let known = |device| self.found.get(&device).map(|found| &found.groups);
            let since = |group| {
                // A group that the trunk has had for a while is not new on the VLAN device that it comes from.
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

    /// Whether a filter or a program that is not ours may take frames of a device. XDP on the trunk runs before our
    /// program in any case, so it does not count there.
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

//! What the loop knows of who owns an address.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use tokio::time::Instant;
use vlanfast_common::{Claim, EndpointKey, Neighbor, NeighborKey, Vid};

use crate::{
    maps::tables::now,
    netlink::{HostNeighbor, Netlink},
    reconcile::probe::ProbeSocket,
    state::{
        address_conflicts::AddressProbes,
        claims::{Conflict, VALIDITY},
        config::{Routes, VlanConfig},
        mac_conflicts::MacConflicts,
        tables::DesiredTables,
        vids::Vids,
    },
};

/// What is known of owners.
pub(super) struct Owners {
    /// Asks the kernel about the host's own neighbours.
    pub(super) kernel: Netlink,
    pub(super) vouching: AddressProbes,
    pub(super) doubles: MacConflicts,
    pub(super) claims: BTreeMap<NeighborKey, Claim>,
    /// In the last round.
    pub(super) conflicts: Vec<Conflict>,
    /// Receivers that were there until lately, and when they were seen last: the host may remember them.
    pub(super) former: BTreeMap<EndpointKey, Duration>,
    /// `None` where the wire can't be asked.
    pub(super) asker: Option<ProbeSocket>,
}

impl Owners {
    pub(super) fn new(wishes: &VlanConfig) -> anyhow::Result<Self> {
        let is_needed = wishes.host_access != Vids::Off || wishes.routes != Routes::None;
        let asker = is_needed.then(ProbeSocket::open).transpose().inspect_err(|error| {
            log::warn!(
                "{error:#}: nobody on the wire is asked whether he has a container's address; give CAP_NET_RAW, so \
                 that he is"
            );
        });
        Ok(Self {
            kernel: Netlink::connect()?,
            vouching: AddressProbes::default(),
            doubles: MacConflicts::default(),
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
    pub(super) fn heard_by_the_host(
        &self,
        known: &[(NeighborKey, HostNeighbor)],
        tables: &DesiredTables,
        now: Duration,
    ) -> Vec<(NeighborKey, Claim)> {
        let claim = |(key, known): &(NeighborKey, HostNeighbor)| {
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
pub(super) fn by_vlan(
    known: Vec<HostNeighbor>,
    tables: &DesiredTables,
) -> Vec<(NeighborKey, HostNeighbor)> {
    let vids: BTreeMap<u32, Vid> = tables.vlans.iter().map(|(v, p)| (p.ifindex, *v)).collect();
    let key = |known: HostNeighbor| {
        let vid = *vids.get(&known.ifindex.0)?;
        Some((NeighborKey::new(vid, known.address), known))
    };
    known.into_iter().filter_map(key).collect()
}

/// The host's own link-local addresses by VLAN, from which it can ask.
pub(super) fn link_locals(tables: &DesiredTables) -> BTreeMap<u16, Ipv6Addr> {
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

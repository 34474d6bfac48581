//! The state of the loop that concerns the owners of addresses.

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

/// The evidence for who owns which address.
pub(super) struct Owners {
    /// The connection over which the host's neighbour tables are read.
    pub(super) kernel: Netlink,
    pub(super) probes: AddressProbes,
    pub(super) mac_conflicts: MacConflicts,
    pub(super) claims: BTreeMap<NeighborKey, Claim>,
    /// The conflicts that the last round found.
    pub(super) conflicts: Vec<Conflict>,
    /// Endpoints that existed until recently, and when each was seen last. The host may still have neighbour entries
    /// for them.
    pub(super) former: BTreeMap<EndpointKey, Duration>,
    /// `None` if the wire cannot be probed.
    pub(super) socket: Option<ProbeSocket>,
}

impl Owners {
    pub(super) fn new(config: &VlanConfig) -> anyhow::Result<Self> {
        let is_needed = config.host_access != Vids::Off || config.routes != Routes::None;
        let socket = is_needed.then(ProbeSocket::open).transpose().inspect_err(|error| {
            log::warn!(
                "{error:#}: the wire can't be probed for conflicting owners of containers' addresses; give CAP_NET_RAW"
            );
        });
        Ok(Self {
            kernel: Netlink::connect()?,
            probes: AddressProbes::default(),
            mac_conflicts: MacConflicts::default(),
            claims: BTreeMap::new(),
            conflicts: vec![],
            former: BTreeMap::new(),
            socket: socket.ok().flatten(),
        })
    }

    /// Returns the time of the next probe or deadline.
    pub(super) fn due(&self) -> Option<Instant> {
        let due = self.probes.due()?;
        let left = due.saturating_sub(now().unwrap_or_default());
        // The wait is bounded, in case the clock could not be read.
        Some(Instant::now() + left.min(VALIDITY))
    }

    /// Converts entries of the host's neighbour tables into claims, if they give an endpoint's address to somebody
    /// else. A claim dates from the last confirmation of its entry. An address that is certain is skipped, because
    /// a probe would have shown the claimant to the programs as well.
    pub(super) fn host_claims(
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
            let counts = known.age < VALIDITY && !is_ours && !self.probes.is_certain(&key);
            counts.then_some((key, claim))
        };
        known.iter().filter_map(claim).collect()
    }
}

/// Assigns the host's neighbour entries to VLANs by their device.
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

/// Returns the host's own link-local address on each VLAN, which is the source of its probes there.
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

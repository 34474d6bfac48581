//! Attributes each address to an endpoint. An address belongs to the endpoint that it was assigned to. An endpoint that
//! has it without assignment only claims it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, btree_map::Entry},
    net::IpAddr,
};

use vlanfast_common::{Endpoint, Mac, Neighbor, NeighborKey, Vid};

use crate::state::{
    name::Name,
    snapshot::{DeviceId, Docker, Ifindex, Link, Snapshot},
    tables::{Desired, DesiredTables},
};

/// The addresses that Docker assigned, by parent name and MAC of the device.
#[derive(Clone, Debug, Default)]
pub struct Given(HashMap<(Name, Mac), Vec<IpAddr>>);

impl Given {
    pub fn by(docker: &Docker) -> Self {
        let mut given = Self::default();
        let attachments = docker.containers.iter().flat_map(|it| &it.attachments);
        for attachment in attachments {
            let network = docker.networks.get(&attachment.network);
            let parent = network.and_then(|network| network.parent.as_deref());
            if let (Some(parent), Some(mac)) = (parent, attachment.mac) {
                let addresses = given.0.entry((parent.into(), mac)).or_default();
                addresses.extend(&attachment.addresses);
            }
        }
        given
    }

    /// Returns the addresses that were assigned to a device on a parent.
    pub fn to(&self, link: &Link, parent: Option<&Link>) -> &[IpAddr] {
        let key = parent.map(|parent| (parent.name.clone(), link.mac));
        key.and_then(|key| self.0.get(&key))
            .map_or(&[], Vec::as_slice)
    }
}

/// Adds the addresses of an endpoint. If two endpoints that are up have the same address, it belongs to the one that it
/// was assigned to, and the other is recorded as its rival. If that does not decide, the first stays and is marked.
pub fn neighbors(
    desired: &mut Desired,
    vid: Vid,
    link: &Link,
    addresses: &[IpAddr],
    is_given: impl Fn(&IpAddr) -> bool,
) {
    let answered = |address: &&IpAddr| !link.silence.hides(**address);
    for &address in addresses.iter().filter(answered) {
        let assigned = is_given(&address).then_some(Neighbor::ASSIGNED);
        let down = (!link.up).then_some(Neighbor::DOWN);
        let neighbor = Neighbor {
            mac: link.mac.0,
            flags: assigned.unwrap_or_default() | down.unwrap_or_default(),
        };
        let key = NeighborKey::new(vid, address);
        let mut entry = match desired.tables.neighbors.entry(key) {
            Entry::Occupied(entry) => entry,
            Entry::Vacant(entry) => {
                entry.insert(neighbor);
                continue;
            }
        };
        let first = *entry.get();
        let rank = |it: Neighbor| (!it.has(Neighbor::DOWN), it.has(Neighbor::ASSIGNED));
        let is_better = rank(neighbor) > rank(first);
        if is_better {
            entry.insert(neighbor);
        }
        let are_up = !first.has(Neighbor::DOWN) && link.up;
        if are_up && first.mac != neighbor.mac {
            if rank(first) == rank(neighbor) {
                entry.get_mut().flags |= Neighbor::CONFLICT;
            }
            let rival = if is_better { first.mac } else { neighbor.mac };
            desired.rivals.entry(key).or_default().insert(rival);
        }
    }
}

/// Adds the addresses for which Linux answers on other devices, because it answers for an address on every device of a
/// namespace (`arp_ignore` 0). An endpoint's address is included if the namespace has an endpoint on another VLAN, or
/// if the endpoint itself does not answer. Returns the namespaces that have each address.
pub fn elsewhere(
    snapshot: &Snapshot,
    receivers: &BTreeMap<DeviceId, Vid>,
    tables: &mut DesiredTables,
) -> BTreeSet<(NeighborKey, i32)> {
    let mut owners = BTreeSet::new();
    for (&nsid, namespace) in &snapshot.namespaces {
        let all = (nsid, Ifindex(0))..=(nsid, Ifindex(u32::MAX));
        let here: BTreeSet<Vid> = receivers.range(all.clone()).map(|(_, vid)| *vid).collect();
        let has_several = receivers.range(all).nth(1).is_some();
        for (&ifindex, addresses) in namespace.addresses.iter().filter(|_| !here.is_empty()) {
            let receiver = namespace.links.get(&ifindex);
            let receiver = receiver.filter(|_| receivers.contains_key(&(nsid, ifindex)));
            for &address in addresses {
                let is_silent = receiver.is_some_and(|link| link.silence.hides(address));
                let by_others = match receiver {
                    Some(_) => here.len() > 1 || has_several && is_silent,
                    None => true,
                };
                if by_others && !is_of_one_device(address) {
                    let key = NeighborKey::new(Vid::UNTAGGED, address).anywhere();
                    let owner = receiver.filter(|_| !is_silent);
                    let mac = owner.map_or([0; 6], |link| link.mac.0);
                    let anywhere = tables.neighbors.entry(key);
                    let first = anywhere.or_insert(Neighbor { mac, flags: 0 });
                    if first.mac != mac {
                        first.mac = [0; 6];
                    }
                    owners.insert((key, nsid.number()));
                }
            }
        }
    }
    owners
}

/// Whether an address is valid on one device only: a loopback or link-local address.
const fn is_of_one_device(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_loopback(),
        IpAddr::V6(address) => address.is_loopback() || address.is_unicast_link_local(),
    }
}

/// Marks the addresses of endpoints whose MAC another device has as well. Frames for the MAC reach only one of the
/// devices, so no address certainly leads to it.
pub fn dispute(tables: &mut DesiredTables) {
    for (key, neighbor) in &mut tables.neighbors {
        let endpoint = tables.endpoints.get(&key.endpoint(neighbor.mac));
        if endpoint.is_some_and(|endpoint| endpoint.has(Endpoint::CONFLICT)) {
            neighbor.flags |= Neighbor::CONFLICT;
        }
    }
}

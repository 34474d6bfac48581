//! From what is so to what should be in the maps: who takes frames on which VLAN of the trunk.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use vlanfast_common::{Endpoint, EndpointKey, Neighbor, NeighborKey, Parent, Route, Settings, Vid};

use super::{
    listeners,
    name::Name,
    snapshot::{Ifindex, Kind, Link, Mode, Network, Nsid, Place},
};

/// The contents of the maps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    pub vlans: BTreeMap<Vid, Parent>,
    pub endpoints: BTreeMap<EndpointKey, Endpoint>,
    pub neighbors: BTreeMap<NeighborKey, Neighbor>,
    pub routes: BTreeMap<NeighborKey, Route>,
}

impl Tables {
    /// What they can't say, whatever room they have, as [`Settings::incomplete`] has it.
    pub fn unseen(&self) -> u32 {
        match self.vlans.get(&Vid::UNTAGGED) {
            Some(trunk) if trunk.has(Parent::TAGGED) => Settings::VLANS,
            _ => 0,
        }
    }
}

/// The contents of the maps, and what people want to see beside them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    pub tables: Tables,
    /// The names of the devices that the host has for the VLANs; VID 0 is the trunk.
    pub parents: BTreeMap<Vid, Name>,
    /// The devices behind the entries that are endpoints, the host's own left out.
    pub devices: BTreeMap<EndpointKey, Device>,
    /// 802.1ad devices on the trunk: ignored.
    pub service_parents: u32,
    /// macvlans and VLAN devices on top of a stacked or 802.1ad VLAN device of the trunk: ignored.
    pub stacked: u32,
}

impl Desired {
    /// The VLANs whose senders have a route to another by the administrator's word, by the device they leave by.
    /// What is untagged leaves by the trunk itself.
    pub fn senders(&self) -> BTreeMap<u32, (Vid, &Name)> {
        let vids: BTreeSet<_> = self.tables.routes.keys().map(|key| key.vid).collect();
        let tagged = |(&vid, parent): (&Vid, &Parent)| {
            let leaves = vid != Vid::UNTAGGED && vids.contains(&vid.get()) && parent.ifindex != 0;
            let name = self.parents.get(&vid).filter(|_| leaves)?;
            Some((parent.ifindex, (vid, name)))
        };
        self.tables.vlans.iter().filter_map(tagged).collect()
    }
}

/// The device behind an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    pub name: Name,
    pub nsid: Nsid,
    pub parent: Name,
    pub addresses: Vec<IpAddr>,
}

/// Computes it all from scratch; the trunk is a device of the own namespace.
pub fn desired(network: &Network, trunk: Ifindex) -> Desired {
    let mut desired = Desired::default();
    let trunk = (Nsid::Own, trunk);
    let parents = parents(network, trunk, &mut desired);
    let mut takers: BTreeSet<Place> = parents.keys().copied().collect();
    for (&nsid, namespace) in &network.namespaces {
        for (&ifindex, link) in &namespace.links {
            let Some((mode, flags)) = macvlan(link.kind) else {
                continue;
            };
            let Some(lower) = link.lower else { continue };
            let Some(&vid) = parents.get(&lower) else {
                continue;
            };
            let addresses = namespace.addresses.get(&ifindex);
            let is_silent = flags & Endpoint::MACVTAP == 0 && addresses.is_none_or(Vec::is_empty);
            let silent = if is_silent { Endpoint::SILENT } else { 0 };
            let endpoint = Endpoint {
                ifindex: ifindex.0,
                nsid: nsid.number(),
                parent: lower.1.0,
                mode: mode as u16,
                flags: flags | silent,
            };
            takers.insert((nsid, ifindex));
            add(&mut desired.tables, vid, link, endpoint);
            neighbors(&mut desired.tables, vid, link, addresses);
            let device = Device {
                name: link.name.clone(),
                nsid,
                parent: network
                    .find(lower)
                    .map(|(_, link)| link.name.clone())
                    .unwrap_or_default(),
                addresses: addresses.cloned().unwrap_or_default(),
            };
            desired
                .devices
                .entry(EndpointKey::new(vid, link.mac))
                .or_insert(device);
        }
    }
    // The host's own last: of a frame for both, the macvlan takes it (`macvlan_handle_frame`).
    for (&place, &vid) in &parents {
        if let Some((namespace, link)) = network.find(place) {
            let endpoint = Endpoint {
                ifindex: place.1.0,
                nsid: place.0.number(),
                parent: place.1.0,
                mode: 0,
                flags: Endpoint::HOST,
            };
            if !is_passed_through(&desired.tables, vid, link, place) {
                add(&mut desired.tables, vid, link, endpoint);
            }
            // A VLAN device takes what is for the trunk's MAC, whatever its own is (`vlan_do_receive`).
            if let Some((_, trunk)) = network.find(trunk) {
                let key = EndpointKey::new(vid, trunk.mac);
                desired.tables.endpoints.entry(key).or_insert(endpoint);
            }
            neighbors(
                &mut desired.tables,
                vid,
                link,
                namespace.addresses.get(&place.1),
            );
            desired.parents.insert(vid, link.name.clone());
            // One that was moved elsewhere can't be redirected to.
            if place.0 == Nsid::Own {
                let flags = if link.up { Parent::UP } else { 0 };
                let parent = Parent {
                    ifindex: place.1.0,
                    flags,
                    mac: link.mac.0,
                    mtu: link.mtu.try_into().unwrap_or(u16::MAX),
                };
                desired.tables.vlans.insert(vid, parent);
            }
        }
    }
    // Also where the host has no device: that is where it would be taken for a VLAN without takers.
    for (vid, flags) in listeners::flags(network, &parents) {
        desired.tables.vlans.entry(vid).or_default().flags |= flags;
    }
    elsewhere(network, &takers, &mut desired.tables);
    dispute(&mut desired.tables);
    desired
}

/// Of two devices with one MAC, frames for it reach one; so nobody's address leads to it for sure.
fn dispute(tables: &mut Tables) {
    for (key, neighbor) in &mut tables.neighbors {
        let owner = EndpointKey {
            vid: key.vid,
            mac: neighbor.mac,
        };
        let endpoint = tables.endpoints.get(&owner);
        if endpoint.is_some_and(|endpoint| endpoint.has(Endpoint::CONFLICT)) {
            neighbor.flags |= Neighbor::CONFLICT;
        }
    }
}

/// The trunk and the 802.1Q devices on it, with their VIDs.
fn parents(network: &Network, trunk: Place, desired: &mut Desired) -> BTreeMap<Place, Vid> {
    let mut parents = BTreeMap::new();
    // Devices whose frames have more than one tag, or a service tag, on the trunk.
    let mut beyond = BTreeSet::new();
    if network.find(trunk).is_some() {
        parents.insert(trunk, Vid::UNTAGGED);
    }
    for (place, link) in network
        .links()
        .filter(|(_, link)| link.lower == Some(trunk))
    {
        match link.kind {
            Kind::Vlan(vid) if vid != Vid::UNTAGGED => {
                parents.insert(place, vid);
            }
            Kind::ServiceVlan => {
                desired.service_parents += 1;
                beyond.insert(place);
            }
            _ => {}
        }
    }
    let on_a_parent = |link: &Link| {
        link.lower
            .is_some_and(|lower| lower != trunk && parents.contains_key(&lower))
    };
    let is_vlan = |link: &Link| matches!(link.kind, Kind::Vlan(_) | Kind::ServiceVlan);
    for (place, link) in network.links() {
        if is_vlan(link) && on_a_parent(link) {
            beyond.insert(place);
            desired.stacked += 1;
        }
    }
    desired.stacked += network
        .links()
        .filter(|(_, link)| macvlan(link.kind).is_some())
        .filter(|(_, link)| link.lower.is_some_and(|lower| beyond.contains(&lower)))
        .count() as u32;
    parents
}

fn macvlan(kind: Kind) -> Option<(Mode, u16)> {
    match kind {
        Kind::Macvlan(mode) => Some((mode, 0)),
        Kind::Macvtap(mode) => Some((mode, Endpoint::MACVTAP)),
        _ => None,
    }
}

/// Whether a macvlan in passthru mode has taken a parent over: it has the parent's MAC, and that is no
/// conflict.
fn is_passed_through(tables: &Tables, vid: Vid, parent: &Link, place: Place) -> bool {
    let endpoint = tables.endpoints.get(&EndpointKey::new(vid, parent.mac));
    endpoint.is_some_and(|endpoint| {
        endpoint.mode == Mode::Passthru as u16 && endpoint.parent == place.1.0
    })
}

/// Adds a taker. Where there is one with the same MAC already, that stays, and is marked.
fn add(tables: &mut Tables, vid: Vid, link: &Link, endpoint: Endpoint) {
    tables
        .endpoints
        .entry(EndpointKey::new(vid, link.mac))
        .and_modify(|first| first.flags |= Endpoint::CONFLICT)
        .or_insert(endpoint);
}

/// Adds a taker's addresses. Where another that is up has one of them already, that stays, and is marked.
fn neighbors(tables: &mut Tables, vid: Vid, link: &Link, addresses: Option<&Vec<IpAddr>>) {
    let neighbor = Neighbor {
        mac: link.mac.0,
        flags: if link.up { 0 } else { Neighbor::DOWN },
    };
    for &address in addresses.into_iter().flatten() {
        let first = tables
            .neighbors
            .entry(NeighborKey::new(vid, address))
            .or_insert(neighbor);
        if first.has(Neighbor::DOWN) {
            *first = neighbor;
        } else if first.mac != neighbor.mac && link.up {
            first.flags |= Neighbor::CONFLICT;
        }
    }
}

/// Adds what else is answered for: Linux knows the addresses of a namespace on all of its devices
/// (`arp_ignore` 0).
fn elsewhere(network: &Network, takers: &BTreeSet<Place>, tables: &mut Tables) {
    let namespaces: BTreeSet<Nsid> = takers.iter().map(|(nsid, _)| *nsid).collect();
    for nsid in namespaces {
        let Some(namespace) = network.namespaces.get(&nsid) else {
            continue;
        };
        let others = namespace
            .addresses
            .iter()
            .filter(|(ifindex, _)| !takers.contains(&(nsid, **ifindex)));
        for address in others.flat_map(|(_, addresses)| addresses) {
            if !is_of_one_device(*address) {
                let key = NeighborKey::new(Vid::UNTAGGED, *address).anywhere();
                tables.neighbors.entry(key).or_default();
            }
        }
    }
}

/// Loopback and link-local addresses mean nothing on another device.
const fn is_of_one_device(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_loopback(),
        IpAddr::V6(address) => address.is_loopback() || address.is_unicast_link_local(),
    }
}

//! Computes the desired contents of the maps from a snapshot: which endpoint receives frames on which VLAN of the trunk.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use vlanfast_common::{Endpoint, EndpointKey, Parent, Vid};

use super::{
    listeners,
    snapshot::{DeviceId, Ifindex, Link, LinkKind, Mode, Nsid, Snapshot},
    tables::{Desired, DesiredTables, EndpointDevice},
};
use crate::state::address_owners::{Given, dispute, elsewhere, neighbors};

/// Computes the desired tables from scratch. `given` has the addresses that Docker assigned to containers; the trunk is a
/// device of our own namespace.
pub fn desired(network: &Snapshot, trunk: Ifindex, given: &Given) -> Desired {
    let mut desired = Desired::default();
    let trunk = (Nsid::Own, trunk);
    let parents = parents(network, trunk, &mut desired);
    let mut receivers = parents.clone();
    let nested = nested(network);
    for (place, link) in network.links() {
        let vid = link.lower.and_then(|lower| parents.get(&lower));
        if let (Some((mode, flags)), Some(&vid)) = (macvlan(link.kind), vid) {
            receivers.insert(place, vid);
            let more = nested.get(&place).map_or(&[][..], Vec::as_slice);
            let receiver = Receiver {
                place,
                link,
                vid,
                mode,
                flags,
            };
            receiver.add(network, more, given, &mut desired);
        }
    }
    // The host's own devices come last, because a macvlan with the same MAC receives the frame first
    // (`macvlan_handle_frame`).
    for (&place, &vid) in &parents {
        own(network, trunk, place, vid, &mut desired);
    }
    // A VLAN without a host device gets its flags too, or it would look like a VLAN without receivers.
    for (vid, flags) in listeners::flags(network, &parents) {
        desired.tables.vlans.entry(vid).or_default().flags |= flags;
    }
    desired.elsewhere = elsewhere(network, &receivers, &mut desired.tables);
    dispute(&mut desired.tables);
    desired
}

/// A macvlan or macvtap on a parent.
struct Receiver<'a> {
    place: DeviceId,
    link: &'a Link,
    vid: Vid,
    mode: Mode,
    flags: u16,
}

impl Receiver<'_> {
    /// Adds the endpoint with its addresses; `more` has those of ipvlan devices on top of it.
    fn add(self, network: &Snapshot, more: &[IpAddr], given: &Given, desired: &mut Desired) {
        let Self {
            place, link, vid, ..
        } = self;
        let Some(lower) = link.lower else { return };
        let own = network.namespaces.get(&place.0);
        let own = own.and_then(|namespace| namespace.addresses.get(&place.1));
        let addresses: Vec<_> = own.into_iter().flatten().chain(more).copied().collect();
        let is_silent = self.flags & Endpoint::MACVTAP == 0 && addresses.is_empty();
        let silent = if is_silent { Endpoint::NO_ADDRESS } else { 0 };
        let endpoint = Endpoint {
            ifindex: place.1.0,
            nsid: place.0.number(),
            parent: lower.1.0,
            mode: self.mode as u16,
            flags: self.flags | silent | down(link),
        };
        add(&mut desired.tables, vid, link, endpoint);
        let parent = network.find(lower).map(|(_, link)| link);
        let was_given = given.to(link, parent);
        // Root assigns the addresses of our own namespace, so they need no confirmation.
        let is_given = |address: &IpAddr| place.0 == Nsid::Own || was_given.contains(address);
        neighbors(desired, vid, link, &addresses, is_given);
        let device = EndpointDevice {
            name: link.name.clone(),
            nsid: place.0,
            parent: parent.map(|link| link.name.clone()).unwrap_or_default(),
            addresses,
            endpoint,
        };
        let id = (EndpointKey::new(vid, link.mac), place);
        desired.devices.insert(id, device);
    }
}

/// Adds a parent, which is the host's own receiver on its VLAN.
fn own(network: &Snapshot, trunk: DeviceId, place: DeviceId, vid: Vid, desired: &mut Desired) {
    let Some((namespace, link)) = network.find(place) else {
        return;
    };
    let tables = &mut desired.tables;
    let endpoint = Endpoint {
        ifindex: place.1.0,
        nsid: place.0.number(),
        parent: place.1.0,
        mode: 0,
        flags: Endpoint::HOST | down(link),
    };
    if !is_passed_through(tables, vid, link, place) {
        add(tables, vid, link, endpoint);
    }
    // A VLAN device receives frames for the trunk's MAC as well as for its own (`vlan_do_receive`).
    if let Some((_, trunk)) = network.find(trunk) {
        let key = EndpointKey::new(vid, trunk.mac);
        let first = tables.endpoints.entry(key).or_insert(endpoint);
        if first.has(Endpoint::DOWN) && !first.has(Endpoint::HOST) && link.up {
            *first = endpoint;
        }
    }
    let addresses = namespace.addresses.get(&place.1);
    let is_given = |_: &IpAddr| place.0 == Nsid::Own;
    neighbors(
        desired,
        vid,
        link,
        addresses.map_or(&[], Vec::as_slice),
        is_given,
    );
    desired.parents.insert(vid, link.name.clone());
    // Frames cannot be redirected to a device in another namespace.
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

/// Collects the addresses of ipvlan devices that are up, by lower device, which answers for them with its own MAC.
fn nested(network: &Snapshot) -> BTreeMap<DeviceId, Vec<IpAddr>> {
    let mut nested = BTreeMap::<_, Vec<_>>::new();
    for ((nsid, ifindex), link) in network.links() {
        let namespace = network.namespaces.get(&nsid);
        let addresses = namespace.and_then(|namespace| namespace.addresses.get(&ifindex));
        if let (LinkKind::Ipvlan, true, Some(lower), Some(addresses)) =
            (link.kind, link.up, link.lower, addresses)
        {
            nested.entry(lower).or_default().extend(addresses);
        }
    }
    nested
}

const fn down(link: &Link) -> u16 {
    if link.up { 0 } else { Endpoint::DOWN }
}

/// Finds the trunk and the 802.1Q devices on it, with their VIDs, and counts what is ignored.
fn parents(network: &Snapshot, trunk: DeviceId, desired: &mut Desired) -> BTreeMap<DeviceId, Vid> {
    let mut parents = BTreeMap::new();
    // Devices whose frames have several tags or a service tag on the trunk.
    let mut beyond = BTreeSet::new();
    if network.find(trunk).is_some() {
        parents.insert(trunk, Vid::UNTAGGED);
    }
    for (place, link) in network
        .links()
        .filter(|(_, link)| link.lower == Some(trunk))
    {
        match link.kind {
            LinkKind::Vlan(vid) if vid != Vid::UNTAGGED => {
                parents.insert(place, vid);
            }
            LinkKind::ServiceVlan => {
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
    let is_vlan = |link: &Link| matches!(link.kind, LinkKind::Vlan(_) | LinkKind::ServiceVlan);
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

fn macvlan(kind: LinkKind) -> Option<(Mode, u16)> {
    match kind {
        LinkKind::Macvlan(mode) => Some((mode, 0)),
        LinkKind::Macvtap(mode) => Some((mode, Endpoint::MACVTAP)),
        _ => None,
    }
}

/// Whether a macvlan in passthru mode has taken a parent over: it has the parent's MAC, and that is no
/// conflict.
fn is_passed_through(tables: &DesiredTables, vid: Vid, parent: &Link, place: DeviceId) -> bool {
    let endpoint = tables.endpoints.get(&EndpointKey::new(vid, parent.mac));
    endpoint.is_some_and(|endpoint| {
        endpoint.mode == Mode::Passthru as u16 && endpoint.parent == place.1.0
    })
}

/// Adds an endpoint. If another endpoint that is up has the same MAC, that one stays and is marked as a conflict. A device
/// that is down receives nothing, and the kernel does not let it come up beside the other.
fn add(tables: &mut DesiredTables, vid: Vid, link: &Link, endpoint: Endpoint) {
    let first = tables
        .endpoints
        .entry(EndpointKey::new(vid, link.mac))
        .or_insert(endpoint);
    if *first == endpoint || !link.up {
        return;
    }
    match first.has(Endpoint::DOWN) {
        true => *first = endpoint,
        false => first.flags |= Endpoint::CONFLICT,
    }
}

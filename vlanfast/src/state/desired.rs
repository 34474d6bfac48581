//! Computes the desired contents of the maps from a snapshot: which endpoint receives frames on which VLAN of the
//! trunk.

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

/// Computes the desired tables from scratch. `given` has the addresses that Docker assigned to containers; the trunk is
/// a device of our own namespace.
pub fn desired(snapshot: &Snapshot, trunk: Ifindex, given: &Given) -> Desired {
    let mut desired = Desired::default();
    let trunk = (Nsid::Own, trunk);
    let parents = parents(snapshot, trunk, &mut desired);
    let mut receivers = parents.clone();
    let nested = nested(snapshot);
    for (device_id, link) in snapshot.links() {
        let vid = link.lower.and_then(|lower| parents.get(&lower));
        if let (Some((mode, flags)), Some(&vid)) = (macvlan(link.kind), vid) {
            receivers.insert(device_id, vid);
            let more = nested.get(&device_id).map_or(&[][..], Vec::as_slice);
            let upper = Upper {
                device_id,
                link,
                vid,
                mode,
                flags,
            };
            upper.add(snapshot, more, given, &mut desired);
        }
    }
    // The host's own devices come last, because a macvlan with the same MAC receives the frame first
    // (`macvlan_handle_frame`).
    for (&device_id, &vid) in &parents {
        own(snapshot, trunk, device_id, vid, &mut desired);
    }
    // A VLAN without a host device gets its flags too, or it would look like a VLAN without receivers.
    for (vid, flags) in listeners::flags(snapshot, &parents) {
        desired.tables.vlans.entry(vid).or_default().flags |= flags;
    }
    desired.elsewhere = elsewhere(snapshot, &receivers, &mut desired.tables);
    dispute(&mut desired.tables);
    desired
}

/// A macvlan or macvtap on a parent.
struct Upper<'a> {
    device_id: DeviceId,
    link: &'a Link,
    vid: Vid,
    mode: Mode,
    flags: u16,
}

impl Upper<'_> {
    /// Adds the endpoint with its addresses; `more` has those of ipvlan devices on top of it.
    fn add(self, snapshot: &Snapshot, more: &[IpAddr], given: &Given, desired: &mut Desired) {
        let Self {
            device_id,
            link,
            vid,
            ..
        } = self;
        let Some(lower) = link.lower else { return };
        let own = snapshot.namespaces.get(&device_id.0);
        let own = own.and_then(|namespace| namespace.addresses.get(&device_id.1));
        let addresses: Vec<_> = own.into_iter().flatten().chain(more).copied().collect();
        let is_silent = self.flags & Endpoint::MACVTAP == 0 && addresses.is_empty();
        let silent = if is_silent { Endpoint::NO_ADDRESS } else { 0 };
        let endpoint = Endpoint {
            ifindex: device_id.1.0,
            nsid: device_id.0.number(),
            parent: lower.1.0,
            mode: self.mode as u16,
            flags: self.flags | silent | down(link),
        };
        add(&mut desired.tables, vid, link, endpoint);
        let parent = snapshot.find(lower).map(|(_, link)| link);
        let was_given = given.to(link, parent);
        // Root assigns the addresses of our own namespace, so they need no confirmation.
        let is_given = |address: &IpAddr| device_id.0 == Nsid::Own || was_given.contains(address);
        neighbors(desired, vid, link, &addresses, is_given);
        let device = EndpointDevice {
            name: link.name.clone(),
            nsid: device_id.0,
            parent: parent.map(|link| link.name.clone()).unwrap_or_default(),
            addresses,
            endpoint,
        };
        let id = (EndpointKey::new(vid, link.mac), device_id);
        desired.devices.insert(id, device);
    }
}

/// Adds a parent, which is the host's own endpoint on its VLAN.
fn own(snapshot: &Snapshot, trunk: DeviceId, device_id: DeviceId, vid: Vid, desired: &mut Desired) {
    let Some((namespace, link)) = snapshot.find(device_id) else {
        return;
    };
    let tables = &mut desired.tables;
    let endpoint = Endpoint {
        ifindex: device_id.1.0,
        nsid: device_id.0.number(),
        parent: device_id.1.0,
        mode: 0,
        flags: Endpoint::HOST | down(link),
    };
    if !is_passed_through(tables, vid, link, device_id) {
        add(tables, vid, link, endpoint);
    }
    // A VLAN device receives frames for the trunk's MAC as well as for its own (`vlan_do_receive`).
    if let Some((_, trunk)) = snapshot.find(trunk) {
        let key = EndpointKey::new(vid, trunk.mac);
        let first = tables.endpoints.entry(key).or_insert(endpoint);
        if first.has(Endpoint::DOWN) && !first.has(Endpoint::HOST) && link.up {
            *first = endpoint;
        }
    }
    let addresses = namespace.addresses.get(&device_id.1);
    let is_given = |_: &IpAddr| device_id.0 == Nsid::Own;
    neighbors(
        desired,
        vid,
        link,
        addresses.map_or(&[], Vec::as_slice),
        is_given,
    );
    desired.parents.insert(vid, link.name.clone());
    // Frames cannot be redirected to a device in another namespace.
    if device_id.0 == Nsid::Own {
        let flags = if link.up { Parent::UP } else { 0 };
        let parent = Parent {
            ifindex: device_id.1.0,
            flags,
            mac: link.mac.0,
            mtu: link.mtu.try_into().unwrap_or(u16::MAX),
        };
        desired.tables.vlans.insert(vid, parent);
    }
}

/// Collects the addresses of ipvlan devices that are up, by lower device, which answers for them with its own MAC.
fn nested(snapshot: &Snapshot) -> BTreeMap<DeviceId, Vec<IpAddr>> {
    let mut nested = BTreeMap::<_, Vec<_>>::new();
    for ((nsid, ifindex), link) in snapshot.links() {
        let namespace = snapshot.namespaces.get(&nsid);
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
fn parents(snapshot: &Snapshot, trunk: DeviceId, desired: &mut Desired) -> BTreeMap<DeviceId, Vid> {
    let mut parents = BTreeMap::new();
    // Devices whose frames have several tags or a service tag on the trunk.
    let mut beyond = BTreeSet::new();
    if snapshot.find(trunk).is_some() {
        parents.insert(trunk, Vid::UNTAGGED);
    }
    for (device_id, link) in snapshot
        .links()
        .filter(|(_, link)| link.lower == Some(trunk))
    {
        match link.kind {
            LinkKind::Vlan(vid) if vid != Vid::UNTAGGED => {
                parents.insert(device_id, vid);
            }
            LinkKind::ServiceVlan => {
                desired.service_parents += 1;
                beyond.insert(device_id);
            }
            _ => {}
        }
    }
    let on_a_parent = |link: &Link| {
        link.lower
            .is_some_and(|lower| lower != trunk && parents.contains_key(&lower))
    };
    let is_vlan = |link: &Link| matches!(link.kind, LinkKind::Vlan(_) | LinkKind::ServiceVlan);
    for (device_id, link) in snapshot.links() {
        if is_vlan(link) && on_a_parent(link) {
            beyond.insert(device_id);
            desired.stacked += 1;
        }
    }
    desired.stacked += snapshot
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

/// Whether a macvlan in passthru mode uses a parent. It has the parent's MAC, which is not a conflict.
fn is_passed_through(tables: &DesiredTables, vid: Vid, parent: &Link, device_id: DeviceId) -> bool {
    let endpoint = tables.endpoints.get(&EndpointKey::new(vid, parent.mac));
    endpoint.is_some_and(|endpoint| {
        endpoint.mode == Mode::Passthru as u16 && endpoint.parent == device_id.1.0
    })
}

/// Adds an endpoint. If another endpoint that is up has the same MAC, that one stays and is marked as a conflict. A
/// device that is down receives nothing, and the kernel does not let it come up beside the other.
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

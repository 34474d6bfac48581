//! From what is so to what should be in the maps: who takes frames on which VLAN of the trunk.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use vlanfast_common::{Endpoint, EndpointKey, Neighbor, NeighborKey, Parent, Route, Settings, Vid};

use super::{
    listeners,
    name::Name,
    owners::{Given, dispute, elsewhere, neighbors},
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
    /// The devices that are endpoints, the host's own left out, though several may have one MAC.
    pub devices: BTreeMap<(EndpointKey, Place), Device>,
    /// The MACs of receivers that say they have an address which another keeps.
    pub rivals: BTreeMap<NeighborKey, BTreeSet<[u8; 6]>>,
    /// Who has the addresses that are answered for anywhere.
    pub elsewhere: BTreeSet<(NeighborKey, i32)>,
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
    /// All that it answers for: those of ipvlan devices on top of it as well.
    pub addresses: Vec<IpAddr>,
    /// As the map would have it if nobody else had its MAC.
    pub endpoint: Endpoint,
}

/// Computes it all from scratch, with what was given to containers; the trunk is a device of the own namespace.
pub fn desired(network: &Network, trunk: Ifindex, given: &Given) -> Desired {
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
    // The host's own last: of a frame for both, the macvlan takes it (`macvlan_handle_frame`).
    for (&place, &vid) in &parents {
        own(network, trunk, place, vid, &mut desired);
    }
    // Also where the host has no device: that is where it would be taken for a VLAN without receivers.
    for (vid, flags) in listeners::flags(network, &parents) {
        desired.tables.vlans.entry(vid).or_default().flags |= flags;
    }
    desired.elsewhere = elsewhere(network, &receivers, &mut desired.tables);
    dispute(&mut desired.tables);
    desired
}

/// A macvlan or macvtap on a parent.
struct Receiver<'a> {
    place: Place,
    link: &'a Link,
    vid: Vid,
    mode: Mode,
    flags: u16,
}

impl Receiver<'_> {
    /// Adds it; some addresses are of devices on top of it.
    fn add(self, network: &Network, more: &[IpAddr], given: &Given, desired: &mut Desired) {
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
        // What the host has for itself is the host's.
        let is_given = |address: &IpAddr| place.0 == Nsid::Own || was_given.contains(address);
        neighbors(desired, vid, link, &addresses, is_given);
        let device = Device {
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

/// Adds a parent: the host's own receiver on its VLAN.
fn own(network: &Network, trunk: Place, place: Place, vid: Vid, desired: &mut Desired) {
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
    // A VLAN device takes what is for the trunk's MAC, whatever its own is (`vlan_do_receive`).
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

/// The addresses of the ipvlan devices that are up, by the device below: that one answers for them with its MAC.
fn nested(network: &Network) -> BTreeMap<Place, Vec<IpAddr>> {
    let mut nested = BTreeMap::<_, Vec<_>>::new();
    for ((nsid, ifindex), link) in network.links() {
        let namespace = network.namespaces.get(&nsid);
        let addresses = namespace.and_then(|namespace| namespace.addresses.get(&ifindex));
        if let (Kind::Ipvlan, true, Some(lower), Some(addresses)) =
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

/// Adds a receiver. Where another that is up has its MAC already, that stays, and is marked. One that is down takes
/// nothing, and the kernel does not let it come up beside the other.
fn add(tables: &mut Tables, vid: Vid, link: &Link, endpoint: Endpoint) {
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

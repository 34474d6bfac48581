//! The contents of the maps, and the data that commands and metrics show beside them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use vlanfast_common::{Endpoint, EndpointKey, Neighbor, NeighborKey, Parent, Route, Settings, Vid};

use super::{
    name::Name,
    snapshot::{DeviceId, Nsid},
};

/// The contents of the maps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DesiredTables {
    pub vlans: BTreeMap<Vid, Parent>,
    pub endpoints: BTreeMap<EndpointKey, Endpoint>,
    pub neighbors: BTreeMap<NeighborKey, Neighbor>,
    pub routes: BTreeMap<NeighborKey, Route>,
}

impl DesiredTables {
    /// The tables that are incomplete regardless of their capacity, as bits of [`Settings::incomplete`].
    pub fn unseen(&self) -> u32 {
        match self.vlans.get(&Vid::UNTAGGED) {
            Some(trunk) if trunk.has(Parent::TAGGED) => Settings::VLANS,
            _ => 0,
        }
    }
}

/// The desired contents of the maps, with the data that commands and metrics show beside them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    pub tables: DesiredTables,
    /// The names of the devices that the host has for the VLANs; VID 0 is the trunk.
    pub parents: BTreeMap<Vid, Name>,
    /// The devices that are endpoints, without the host's own. Several may have the same MAC.
    pub devices: BTreeMap<(EndpointKey, DeviceId), EndpointDevice>,
    /// The MACs of endpoints that have an address which is attributed to another endpoint.
    pub rivals: BTreeMap<NeighborKey, BTreeSet<[u8; 6]>>,
    /// The addresses for which a namespace answers on all of its VLANs, with the namespace's number.
    pub elsewhere: BTreeSet<(NeighborKey, i32)>,
    /// The number of 802.1ad devices on the trunk, which are ignored.
    pub service_parents: u32,
    /// The number of macvlans and VLAN devices on top of a stacked or 802.1ad VLAN device of the trunk, which are
    /// ignored.
    pub stacked: u32,
}

impl Desired {
    /// The VLANs with routes to another VLAN (`--shortcut allow`), by the index of their device. Untagged frames leave
    /// by the trunk itself and are not included.
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

/// The device of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointDevice {
    pub name: Name,
    pub nsid: Nsid,
    pub parent: Name,
    /// The addresses that it answers for, including those of ipvlan devices on top of it.
    pub addresses: Vec<IpAddr>,
    /// The map entry that it would have if no other device had its MAC.
    pub endpoint: Endpoint,
}

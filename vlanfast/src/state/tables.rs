//! The contents of the maps, and what is shown beside them.

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
    pub tables: DesiredTables,
    /// The names of the devices that the host has for the VLANs; VID 0 is the trunk.
    pub parents: BTreeMap<Vid, Name>,
    /// The devices that are endpoints, the host's own left out, though several may have one MAC.
    pub devices: BTreeMap<(EndpointKey, DeviceId), EndpointDevice>,
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
pub struct EndpointDevice {
    pub name: Name,
    pub nsid: Nsid,
    pub parent: Name,
    /// All that it answers for: those of ipvlan devices on top of it as well.
    pub addresses: Vec<IpAddr>,
    /// As the map would have it if nobody else had its MAC.
    pub endpoint: Endpoint,
}

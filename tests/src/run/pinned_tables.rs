//! Direct lookups in the pinned maps of a trunk.

use std::net::IpAddr;

use anyhow::Result;
use aya::maps::{HashMap, Map, MapData, MapError};
use vlanfast_common::{Endpoint, EndpointKey, Mac, Neighbor, NeighborKey, Vid};

use crate::run::pins::pins;

/// The pinned `ENDPOINTS` and `NEIGHBORS` of a trunk.
pub struct PinnedTables {
    endpoints: HashMap<MapData, EndpointKey, Endpoint>,
    neighbors: HashMap<MapData, NeighborKey, Neighbor>,
}

impl PinnedTables {
    pub fn open(trunk: &str) -> Result<Self> {
        let open = |name| MapData::from_pin(pins(trunk).join(name)).map(Map::HashMap);
        Ok(Self {
            endpoints: open("ENDPOINTS")?.try_into()?,
            neighbors: open("NEIGHBORS")?.try_into()?,
        })
    }

    /// Looks up the entry for an address on a VLAN.
    pub fn neighbor(&self, vid: u16, address: IpAddr) -> Result<Option<Neighbor>> {
        let key = NeighborKey::new(Vid::new(vid), address);
        match self.neighbors.get(&key, 0) {
            Err(MapError::KeyNotFound) => Ok(None),
            neighbor => Ok(Some(neighbor?)),
        }
    }

    /// Checks whether a MAC has an address on a VLAN, according to both maps.
    pub fn has(&self, vid: u16, mac: [u8; 6], address: IpAddr) -> Result<bool> {
        let vid = Vid::new(vid);
        let known = match self.endpoints.get(&EndpointKey::new(vid, Mac(mac)), 0) {
            Err(MapError::KeyNotFound) => false,
            endpoint => endpoint.map(|_| true)?,
        };
        Ok(known
            && self
                .neighbor(vid.get(), address)?
                .is_some_and(|neighbor| neighbor.mac == mac))
    }
}

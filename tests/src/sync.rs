//! What the maps hold, as seen by another process: by `vlanfast endpoints`, and map by map.

use std::{
    net::IpAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use aya::maps::{HashMap, Map, MapData, MapError};
use serde_json::Value;
use vlanfast_common::{Endpoint, EndpointKey, Mac, Neighbor, NeighborKey, Vid};

use crate::{
    program::{Attached, pins},
    topology::{Netns, Wire},
};

/// The row of the endpoint whose device has a name.
pub fn endpoint<'a>(endpoints: &'a [Value], device: &str) -> Option<&'a Value> {
    endpoints.iter().find(|row| row["device"] == device)
}

/// Waits until the endpoints are as they should be; fails with what they are.
pub fn eventually(what: &str, attached: &Attached, condition: impl Fn(&[Value]) -> bool) {
    let start = Instant::now();
    loop {
        let endpoints = attached
            .endpoints()
            .expect("endpoints can be read while attached");
        if condition(&endpoints) {
            return;
        }
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "never came: {what}; the endpoints are {endpoints:#?}"
        );
        thread::sleep(Duration::from_millis(50));
    }
}

/// Waits until `status` shows these listeners on a VLAN, and no others.
pub fn listeners(attached: &Attached, vlan: u16, expected: &[&str]) {
    let start = Instant::now();
    loop {
        let status = attached
            .status()
            .expect("status can be read while attached");
        let vlans = status["vlans"].as_array().expect("vlans are an array");
        let row = vlans.iter().find(|row| row["vlan"] == vlan);
        let found = row.map_or_else(Vec::new, |row| {
            let listeners = row["listeners"].as_array();
            listeners.expect("listeners are an array").clone()
        });
        if found == expected {
            return;
        }
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "VLAN {vlan} should have the listeners {expected:?}: {status:#}"
        );
        thread::sleep(Duration::from_millis(20));
    }
}

/// The pinned maps of a trunk, looked up directly.
pub struct Receiver {
    endpoints: HashMap<MapData, EndpointKey, Endpoint>,
    neighbors: HashMap<MapData, NeighborKey, Neighbor>,
}

impl Receiver {
    pub fn open(trunk: &str) -> Result<Self> {
        let open = |name| MapData::from_pin(pins(trunk).join(name)).map(Map::HashMap);
        Ok(Self {
            endpoints: open("ENDPOINTS")?.try_into()?,
            neighbors: open("NEIGHBORS")?.try_into()?,
        })
    }

    /// What the map says of an address on a VLAN.
    pub fn neighbor(&self, vid: u16, address: IpAddr) -> Result<Option<Neighbor>> {
        let key = NeighborKey::new(Vid::new(vid), address);
        match self.neighbors.get(&key, 0) {
            Err(MapError::KeyNotFound) => Ok(None),
            neighbor => Ok(Some(neighbor?)),
        }
    }

    /// Whether a MAC has an address on a VLAN, according to both maps.
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

/// Attaches with what these tests do not need switched off.
pub fn attach(wire: &Wire, more: &[&str]) -> Attached {
    let arguments = [&["--docker", "off", "--metrics", "off"], more].concat();
    Attached::start(&wire.host, &wire.trunk, &arguments).unwrap()
}

/// A container as Docker makes it: a macvlan that is made in the host and moved, with an address.
pub fn container(wire: &Wire, name: &str, address: &str) -> Netns {
    let trunk = &wire.trunk;
    made(wire, name, address, |netns| {
        format!(
            "ip link add link {trunk} name {name} type macvlan mode bridge && \
             ip link set {name} netns {netns}"
        )
    })
}

/// A container as CNI and Podman make it: its macvlan is made in place, so that its namespace gets no id.
pub fn placed(wire: &Wire, name: &str, address: &str) -> Netns {
    let trunk = &wire.trunk;
    made(wire, name, address, |netns| {
        format!("ip link add link {trunk} name {name} netns {netns} type macvlan mode private")
    })
}

fn made(wire: &Wire, name: &str, address: &str, line: impl Fn(&str) -> String) -> Netns {
    let container = Netns::new().unwrap();
    wire.host.run(&line(&container.name)).unwrap();
    container
        .run(&format!(
            "ip addr add {address}/24 dev {name} && ip link set {name} up"
        ))
        .unwrap();
    container
}

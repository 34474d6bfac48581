//! Tests of the owners of addresses: by assignment, by claims, and by probes.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod probes;

use std::{collections::BTreeMap, net::IpAddr};

use vlanfast::state::{
    address_owners::Given,
    config::{Routes, VlanConfig},
    desired::desired,
    snapshot::{
        Container, Docker, DockerAttachment, DockerNetwork, Ifindex, Link, LinkKind, Mode, Nsid,
        Promiscuity, Silence, Snapshot,
    },
    tables::{Desired, DesiredTables},
};
use vlanfast_common::{Mac, Neighbor, NeighborKey, Vid};

const TRUNK: Ifindex = Ifindex(2);

fn mac(last: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, last])
}

fn key(vid: u16, address: &str) -> NeighborKey {
    NeighborKey::new(Vid::new(vid), address.parse().unwrap())
}

/// A trunk with VLANs 10 and 20, whose devices have the indexes 10 and 20, and the MAC …:01.
struct TwoVlans(Snapshot);

impl TwoVlans {
    fn new() -> Self {
        let mut topology = Self(Snapshot::default());
        topology.add(Nsid::Own, TRUNK.0, 1, LinkKind::Other, None, &[]);
        for number in [10, 20] {
            let kind = LinkKind::Vlan(Vid::new(number));
            topology.add(Nsid::Own, number.into(), 1, kind, Some(TRUNK.0), &[]);
        }
        topology
    }

    fn add(
        &mut self,
        nsid: Nsid,
        index: u32,
        last: u8,
        kind: LinkKind,
        lower: Option<u32>,
        addresses: &[&str],
    ) -> &mut Link {
        let namespace = self.0.namespaces.entry(nsid).or_default();
        let addresses = addresses.iter().map(|it| it.parse().unwrap()).collect();
        namespace.addresses.insert(Ifindex(index), addresses);
        let link = Link {
            name: format!("d{index}").as_str().into(),
            mac: mac(last),
            up: true,
            mtu: 1500,
            kind,
            lower: lower.map(|lower| (Nsid::Own, Ifindex(lower))),
            port: false,
            promiscuity: Promiscuity::default(),
            silence: Silence::default(),
        };
        let links = namespace.links.entry(Ifindex(index));
        links.insert_entry(link).into_mut()
    }

    /// Adds a macvlan in a container.
    fn container(&mut self, nsid: i32, last: u8, vid: u32, addresses: &[&str]) -> &mut Link {
        let kind = LinkKind::Macvlan(Mode::Bridge);
        let index = 100 + u32::from(last);
        self.add(Nsid::Other(nsid), index, last, kind, Some(vid), addresses)
    }

    fn host_address(&mut self, vid: u32, address: &str) {
        let own = self.0.namespaces.get_mut(&Nsid::Own).unwrap();
        let addresses = own.addresses.get_mut(&Ifindex(vid)).unwrap();
        addresses.push(address.parse().unwrap());
    }

    fn desired(&self, docker: &Docker) -> Desired {
        desired(&self.0, TRUNK, &Given::by(docker))
    }

    fn tables(&self) -> DesiredTables {
        self.desired(&Docker::default()).tables
    }
}

/// Docker's record that an address was assigned to a MAC on VLAN 10.
fn given(last: u8, address: &str) -> Docker {
    let network = DockerNetwork {
        name: "lan".into(),
        parent: Some("d10".into()),
    };
    let attachment = DockerAttachment {
        network: "id".into(),
        mac: Some(mac(last)),
        addresses: vec![address.parse().unwrap()],
    };
    Docker {
        networks: BTreeMap::from([("id".into(), network)]),
        containers: vec![Container {
            attachments: vec![attachment],
            ..Container::default()
        }],
    }
}

#[test]
fn an_assigned_address_belongs_to_its_endpoint_and_the_other_is_its_rival() {
    let address = "10.0.10.5";
    for nsids in [[1, 2], [2, 1]] {
        let mut topology = TwoVlans::new();
        topology.container(nsids[0], 5, 10, &[address]);
        topology.container(nsids[1], 6, 10, &[address, "10.0.10.6"]);
        let desired = topology.desired(&given(5, address));
        let owner = desired.tables.neighbors[&key(10, address)];
        assert_eq!((owner.mac, owner.flags), (mac(5).0, Neighbor::ASSIGNED));
        assert!(desired.rivals[&key(10, address)].iter().eq([&mac(6).0]));
        assert_eq!(desired.rivals.len(), 1);
        // Without an assignment, it is uncertain who owns the address.
        let nobody = topology.desired(&Docker::default());
        assert_eq!(
            nobody.tables.neighbors[&key(10, address)].flags,
            Neighbor::CONFLICT
        );
        // An assignment is for one VLAN, one MAC and one address.
        for docker in [given(7, address), given(5, "10.0.10.9")] {
            let desired = topology.desired(&docker);
            assert_eq!(
                desired.tables.neighbors[&key(10, address)].flags,
                Neighbor::CONFLICT
            );
        }
    }
}

#[test]
fn the_hosts_own_address_is_the_hosts() {
    let mut topology = TwoVlans::new();
    topology.host_address(10, "10.0.10.1");
    topology.container(1, 5, 10, &["10.0.10.1"]);
    let desired = topology.desired(&Docker::default());
    let owner = desired.tables.neighbors[&key(10, "10.0.10.1")];
    assert_eq!((owner.mac, owner.flags), (mac(1).0, Neighbor::ASSIGNED));
    assert!(desired.rivals[&key(10, "10.0.10.1")].contains(&mac(5).0));
}

#[test]
fn a_silent_device_has_no_address_that_others_can_ask_it_for() {
    let virtual_ip = ["10.0.10.100", "fd00:10::100"];
    for (silence, hidden) in [
        (Silence::None, [false, false]),
        (Silence::Ipv4, [true, false]),
        (Silence::All, [true, true]),
    ] {
        let mut topology = TwoVlans::new();
        topology.container(1, 5, 10, &virtual_ip).silence = silence;
        let tables = topology.tables();
        for (address, hidden) in virtual_ip.into_iter().zip(hidden) {
            assert_eq!(!tables.neighbors.contains_key(&key(10, address)), hidden);
            // No other device answers for the address.
            assert!(!tables.neighbors.contains_key(&key(0, address).anywhere()));
        }
        // Another device of the namespace answers for it.
        topology.container(1, 6, 10, &["10.0.10.6"]);
        let tables = topology.tables();
        for (address, hidden) in virtual_ip.into_iter().zip(hidden) {
            assert_eq!(
                tables.neighbors.contains_key(&key(0, address).anywhere()),
                hidden,
                "{address} {silence:?}"
            );
        }
        // The shortcut leads to the device that would have answered.
        let mut tables = tables;
        let config = VlanConfig {
            routes: Routes::Between(vec!["10:20".parse().unwrap()]),
            ..VlanConfig::default()
        };
        config.write(&mut tables);
        for (address, hidden) in virtual_ip.into_iter().zip(hidden) {
            assert_eq!(!tables.routes.contains_key(&key(20, address)), hidden);
        }
    }
}

#[test]
fn an_address_on_one_vlan_is_answered_for_on_the_other() {
    let mut topology = TwoVlans::new();
    topology.container(1, 5, 10, &["10.0.10.5", "fe80::5"]);
    topology.container(1, 6, 20, &["10.0.20.6"]);
    topology.container(2, 7, 10, &["10.0.10.7"]);
    topology.container(2, 8, 10, &["10.0.10.8"]);
    topology.host_address(10, "10.0.10.1");
    let mut tables = topology.tables();
    let anywhere: Vec<IpAddr> = tables
        .neighbors
        .keys()
        .filter(|key| key.vid == NeighborKey::ANYWHERE)
        .map(|key| key.address())
        .collect();
    let mut expected: Vec<IpAddr> = ["10.0.10.1", "10.0.10.5", "10.0.20.6"]
        .map(|it| it.parse().unwrap())
        .into();
    expected.sort();
    assert_eq!(anywhere, expected);
    // The address still belongs to one container, so the shortcut leads to it.
    let config = VlanConfig {
        routes: Routes::Everywhere,
        ..VlanConfig::default()
    };
    config.write(&mut tables);
    let route = tables.routes[&key(10, "10.0.10.5").anywhere()];
    assert_eq!((route.mac, route.vid), (mac(5).0, 10));
}

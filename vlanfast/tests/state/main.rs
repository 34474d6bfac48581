//! Tests of the way from a snapshot to a plan, without a kernel.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod network;

use network::{OWN, TRUNK, TestNetwork, key, mac, neighbor, vid};
use vlanfast::state::{
    name::Name,
    plan::{Capacity, plan},
    quotas::Quotas,
    snapshot::{Ifindex, LinkKind, Mode, Nsid, Snapshot},
    tables::{Desired, DesiredTables},
};
use vlanfast_common::{Endpoint, EndpointKey, Neighbor, NeighborKey};

/// Returns the keys of the endpoints, without the host's own.
fn endpoints(desired: &Desired) -> Vec<EndpointKey> {
    let all = desired.tables.endpoints.iter();
    all.filter(|(_, endpoint)| !endpoint.has(Endpoint::HOST))
        .map(|(key, _)| *key)
        .collect()
}

#[test]
fn a_container_in_two_vlans_is_two_endpoints() {
    let mut network = TestNetwork::new();
    network.container(3, 7, 5, 10, &["10.0.10.3", "2001:db8:10::3"]);
    network.container(3, 8, 6, 20, &["10.0.20.3"]);
    let desired = network.desired();
    assert_eq!(endpoints(&desired), [key(10, 5), key(20, 6)]);
    let expected = Endpoint {
        ifindex: 7,
        nsid: 3,
        parent: 10,
        mode: 4,
        flags: 0,
    };
    assert_eq!(desired.tables.endpoints[&key(10, 5)], expected);
    for (number, address, last) in [
        (10, "10.0.10.3", 5),
        (10, "2001:db8:10::3", 5),
        (20, "10.0.20.3", 6),
    ] {
        let expected = Neighbor {
            mac: mac(last).0,
            flags: 0,
        };
        assert_eq!(
            desired.tables.neighbors[&neighbor(number, address)],
            expected,
            "{address}"
        );
    }
    assert_eq!(
        desired.devices[&(key(10, 5), (Nsid::Other(3), Ifindex(7)))].parent,
        "eth0.10".into()
    );
}

#[test]
fn the_host_has_an_entry_on_every_parent_but_is_no_container() {
    let mut network = TestNetwork::new();
    network.addresses(OWN, 10, &["10.0.10.250"]);
    network.addresses(OWN, TRUNK.0, &["192.0.2.1"]);
    let desired = network.desired();
    for number in [0, 10, 20] {
        let receiver = desired.tables.endpoints[&key(number, 1)];
        assert!(
            receiver.has(Endpoint::HOST) && !receiver.has(Endpoint::CONFLICT),
            "{number}"
        );
        assert_eq!(receiver.nsid, Endpoint::OWN_NAMESPACE);
    }
    // Linux answers for each address on the other VLANs as well.
    let neighbors = desired.tables.neighbors.keys();
    let vids: Vec<_> = neighbors.map(|key| key.vid).collect();
    assert_eq!(vids.len(), 4);
    let anywhere = vids.iter().filter(|vid| **vid == NeighborKey::ANYWHERE);
    assert_eq!(anywhere.count(), 2);
    assert!(desired.devices.is_empty());
    let parents: Vec<_> = desired.parents.values().map(Name::to_string).collect();
    assert_eq!(parents, ["eth0", "eth0.10", "eth0.20"]);
}

#[test]
fn the_vlan_is_that_of_the_device_and_not_of_its_name() {
    let mut network = TestNetwork::new();
    network.vlan(30, "uplink", 7);
    network.vlan(31, "eth0.99", 8);
    network.container(1, 7, 5, 30, &[]);
    network.container(1, 8, 6, 31, &[]);
    assert_eq!(endpoints(&network.desired()), [key(7, 5), key(8, 6)]);
}

#[test]
fn several_networks_on_one_parent_share_its_vlan() {
    let mut network = TestNetwork::new();
    network.container(1, 7, 5, 10, &["10.0.10.5"]);
    network.container(2, 7, 6, 10, &["10.1.10.5"]);
    let desired = network.desired();
    assert_eq!(endpoints(&desired), [key(10, 5), key(10, 6)]);
    let second = neighbor(10, "10.1.10.5");
    assert!(desired.tables.neighbors.contains_key(&second));
}

#[test]
fn a_macvlan_on_the_trunk_and_a_macvtap_of_the_host_are_endpoints() {
    let mut network = TestNetwork::new();
    network.container(1, 7, 5, TRUNK.0, &[]);
    network.add(
        OWN,
        40,
        "vm0",
        6,
        LinkKind::Macvtap(Mode::Vepa),
        Some((OWN, 10)),
    );
    let desired = network.desired();
    assert_eq!(endpoints(&desired), [key(0, 5), key(10, 6)]);
    let macvtap = desired.tables.endpoints[&key(10, 6)];
    assert!(macvtap.has(Endpoint::MACVTAP));
    assert_eq!((macvtap.mode, macvtap.nsid), (2, Endpoint::OWN_NAMESPACE));
}

#[test]
fn the_same_mac_and_address_on_two_vlans_are_no_conflict() {
    let mut network = TestNetwork::new();
    network.container(1, 7, 5, 10, &["10.0.0.5"]);
    network.container(2, 7, 5, 20, &["10.0.0.5"]);
    let desired = network.desired();
    assert_eq!(endpoints(&desired), [key(10, 5), key(20, 5)]);
    let DesiredTables {
        endpoints,
        neighbors,
        ..
    } = desired.tables;
    let mut conflicts = endpoints.values().map(|it| it.flags & Endpoint::CONFLICT);
    assert!(conflicts.all(|it| it == 0) && neighbors.values().all(|it| it.flags == 0));
}

#[test]
fn two_endpoints_of_one_vlan_with_the_same_mac_or_address_are_a_conflict() {
    let mut network = TestNetwork::new();
    network.container(1, 7, 5, 10, &["10.0.10.5", "10.0.10.9"]);
    network.container(2, 7, 5, 10, &["10.0.10.6"]);
    network.container(3, 7, 6, 10, &["10.0.10.9"]);
    let desired = network.desired();
    assert!(desired.tables.endpoints[&key(10, 5)].has(Endpoint::CONFLICT));
    assert!(!desired.tables.endpoints[&key(10, 6)].has(Endpoint::CONFLICT));
    assert!(desired.tables.neighbors[&neighbor(10, "10.0.10.9")].has(Neighbor::CONFLICT));
    assert!(desired.tables.neighbors[&neighbor(10, "10.0.10.6")].has(Neighbor::CONFLICT));
}

#[test]
fn a_device_that_is_down_causes_no_conflict() {
    // Two macvlans, or a macvlan and the host's own device, have the same MAC, in either order.
    for (twin, others) in [(1, 5), (9, 5), (1, 1), (9, 1)] {
        let mut network = TestNetwork::new();
        network.container(5, 7, 5, 10, &["10.0.10.5"]);
        network.container(twin, 8, others, 10, &["10.0.10.5"]);
        network.down(Nsid::Other(twin), 8);
        let desired = network.desired();
        let receiver = desired.tables.endpoints[&key(10, others)];
        let index = if others == 5 { 7 } else { 10 };
        assert_eq!(
            (receiver.ifindex, receiver.flags & !Endpoint::HOST),
            (index, 0)
        );
        let owner = desired.tables.neighbors[&neighbor(10, "10.0.10.5")];
        assert_eq!((owner.mac, owner.flags), (mac(5).0, 0));
        let twins = desired.devices.keys().filter(|(_, device)| device.1.0 == 8);
        assert_eq!(twins.count(), 1, "the device that is down is still shown");
    }
    let mut network = TestNetwork::new();
    network.container(1, 7, 5, 10, &["10.0.10.5"]);
    network.down(Nsid::Other(1), 7);
    let receiver = network.desired().tables.endpoints[&key(10, 5)];
    assert_eq!(receiver.flags, Endpoint::DOWN);
}

#[test]
fn a_macvlan_answers_for_the_ipvlan_devices_on_it() {
    let mut network = TestNetwork::new();
    network.container(3, 7, 5, 10, &["10.0.10.3"]);
    for (nsid, index, address) in [
        (3, 8, "10.0.10.8"),
        (4, 9, "2001:db8::9"),
        (4, 10, "10.0.10.10"),
    ] {
        let (nsid, lower) = (Nsid::Other(nsid), (Nsid::Other(3), 7));
        network.add(nsid, index, "ipvl", 5, LinkKind::Ipvlan, Some(lower));
        network.addresses(nsid, index, &[address]);
    }
    network.down(Nsid::Other(4), 10);
    let desired = network.desired();
    for address in ["10.0.10.3", "10.0.10.8", "2001:db8::9"] {
        let owner = desired.tables.neighbors[&neighbor(10, address)];
        assert_eq!((owner.mac, owner.flags), (mac(5).0, 0), "{address}");
    }
    let down = neighbor(10, "10.0.10.10");
    assert!(!desired.tables.neighbors.contains_key(&down));
    assert_eq!(endpoints(&desired), [key(10, 5)]);
}

#[test]
fn a_container_with_the_hosts_mac_receives_its_frames() {
    let mut network = TestNetwork::new();
    network.container(1, 7, 1, 10, &[]);
    let receiver = network.desired().tables.endpoints[&key(10, 1)];
    assert!(!receiver.has(Endpoint::HOST) && receiver.has(Endpoint::CONFLICT));
}

#[test]
fn a_passthru_macvlan_has_its_parents_mac_without_conflict() {
    let mut network = TestNetwork::new();
    let kind = LinkKind::Macvtap(Mode::Passthru);
    network.add(OWN, 40, "vm0", 1, kind, Some((OWN, 10)));
    let receiver = network.desired().tables.endpoints[&key(10, 1)];
    assert_eq!((receiver.ifindex, receiver.flags), (40, Endpoint::MACVTAP));
}

#[test]
fn service_vlans_and_stacked_tags_are_ignored_and_counted() {
    let mut network = TestNetwork::new();
    network.add(
        OWN,
        50,
        "eth0.s",
        1,
        LinkKind::ServiceVlan,
        Some((OWN, TRUNK.0)),
    );
    network.add(
        OWN,
        51,
        "eth0.10.30",
        1,
        LinkKind::Vlan(vid(30)),
        Some((OWN, 10)),
    );
    network.container(1, 7, 5, 50, &[]);
    network.container(1, 8, 6, 51, &[]);
    let desired = network.desired();
    assert_eq!(endpoints(&desired), []);
    assert_eq!((desired.service_parents, desired.stacked), (1, 3));
    assert!(!desired.tables.vlans.contains_key(&vid(30)));
}

#[test]
fn devices_of_another_trunk_and_indexes_of_other_namespaces_are_not_ours() {
    let mut network = TestNetwork::new();
    network.add(OWN, 60, "eth1", 9, LinkKind::Other, None);
    network.add(
        OWN,
        61,
        "eth1.10",
        9,
        LinkKind::Vlan(vid(10)),
        Some((OWN, 60)),
    );
    network.container(1, 7, 5, 61, &[]);
    // Index 10 in namespace 4 is not our device eth0.10.
    network.add(
        Nsid::Other(4),
        8,
        "mv",
        6,
        LinkKind::Macvlan(Mode::Bridge),
        Some((Nsid::Other(4), 10)),
    );
    assert_eq!(endpoints(&network.desired()), []);
}

#[test]
fn a_vlan_device_that_was_moved_away_still_gives_its_macvlans_their_vlan() {
    let mut network = TestNetwork::new();
    let there = Nsid::Other(4);
    network.add(
        there,
        30,
        "eth0.30",
        1,
        LinkKind::Vlan(vid(30)),
        Some((OWN, TRUNK.0)),
    );
    network.add(
        there,
        31,
        "mv",
        6,
        LinkKind::Macvlan(Mode::Private),
        Some((there, 30)),
    );
    let desired = network.desired();
    assert_eq!(endpoints(&desired), [key(30, 6)]);
    let parent = desired.tables.vlans[&vid(30)];
    assert_eq!(parent.ifindex, 0, "frames cannot be redirected there");
    assert_eq!(desired.parents[&vid(30)], "eth0.30".into());
}

#[test]
fn a_sub_interface_that_comes_back_with_another_vid_moves_its_endpoints() {
    let mut network = TestNetwork::new();
    network.container(1, 7, 5, 10, &["10.0.10.5"]);
    let before = network.desired();
    network.vlan(10, "eth0.10", 11);
    let after = network.desired();
    assert_eq!(endpoints(&after), [key(11, 5)]);
    let plenty = Capacity {
        endpoints: 100,
        neighbors: 100,
        routes: 100,
    };
    let quotas = Quotas {
        addresses: 64,
        endpoints: 64,
    };
    let plan = plan(&before.tables, &after, plenty, quotas);
    assert_eq!(plan.vlans.remove, [vid(10)]);
    assert_eq!(plan.endpoints.remove, [key(10, 1), key(10, 5)]);
    assert_eq!(plan.neighbors.remove, [neighbor(10, "10.0.10.5")]);
}

#[test]
fn without_the_trunk_the_tables_are_empty() {
    let nobody = TestNetwork(Snapshot::default());
    assert_eq!(nobody.desired(), Desired::default());
}

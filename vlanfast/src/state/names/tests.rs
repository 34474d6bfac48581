use std::net::{IpAddr, Ipv4Addr};

use proptest::{
    collection::{btree_map, vec},
    prelude::*,
    sample::select,
};
use vlanfast_common::{Endpoint, EndpointKey, Mac, Vid};

use super::{Id, Names, names};
use crate::state::{
    snapshot::{Container, Docker, DockerAttachment, DockerNetwork, Ifindex, Nsid},
    tables::{Desired, EndpointDevice},
};

/// Parents, MACs and addresses are made from numbers, because only their equality matters.
fn parent(number: u8) -> String {
    match number {
        0 => "eth0".to_owned(),
        vid => format!("eth0.{vid}"),
    }
}

fn mac(number: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, number])
}

fn address(number: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, number))
}

fn device(vlan: u8, its_mac: u8, address_: u8, nsid: Nsid) -> (Id, EndpointDevice) {
    let device = EndpointDevice {
        name: format!("dev{its_mac}").as_str().into(),
        nsid,
        parent: parent(vlan).as_str().into(),
        addresses: vec!["fe80::1".parse().unwrap(), address(address_)],
        endpoint: Endpoint::default(),
    };
    let key = EndpointKey::new(Vid::new(vlan.into()), mac(its_mac));
    ((key, (nsid, Ifindex(its_mac.into()))), device)
}

fn attachment(network: &str, its_mac: u8, address_: u8) -> DockerAttachment {
    DockerAttachment {
        network: network.to_owned(),
        mac: Some(mac(its_mac)),
        addresses: vec![address(address_)],
    }
}

fn container(name: &str, attachments: Vec<DockerAttachment>) -> Container {
    Container {
        name: name.to_owned(),
        project: Some(format!("{name}-project")),
        service: Some(format!("{name}-service")),
        attachments,
    }
}

/// Builds Docker's state. Networks are given as `(id, parent)`, and the id is the name as well.
fn docker(networks: &[(&str, u8)], containers: Vec<Container>) -> Docker {
    let network = |&(id, on): &(&str, u8)| {
        let network = DockerNetwork {
            name: id.to_owned(),
            parent: Some(parent(on)),
        };
        (id.to_owned(), network)
    };
    Docker {
        networks: networks.iter().map(network).collect(),
        containers,
    }
}

/// Returns the container and the network of each device, in the order of keys: by VLAN, then by MAC.
fn found(devices: &[(Id, EndpointDevice)], docker: &Docker) -> Vec<(String, String)> {
    let desired = Desired {
        devices: devices.iter().cloned().collect(),
        ..Desired::default()
    };
    let names = names(&desired, docker);
    assert!(names.keys().eq(desired.devices.keys()));
    let shown = |name: Option<String>| name.unwrap_or_else(|| "-".to_owned());
    let pair = |names: Names| (shown(names.container), shown(names.network));
    names.into_values().map(pair).collect()
}

fn check(devices: &[(Id, EndpointDevice)], docker: &Docker, expected: &[(&str, &str)]) {
    let found = found(devices, docker);
    let found: Vec<_> = found.iter().map(|(c, n)| (&c[..], &n[..])).collect();
    assert_eq!(found, expected);
}

const NS: Nsid = Nsid::Other(3);

#[test]
fn a_device_has_all_names_of_its_container() {
    let (key, device) = device(10, 1, 1, NS);
    let desired = Desired {
        devices: [(key, device)].into(),
        ..Desired::default()
    };
    let docker = docker(
        &[("n10", 10)],
        vec![container("web", vec![attachment("n10", 1, 1)])],
    );
    let expected = Names {
        device: "dev1".to_owned(),
        container: Some("web".to_owned()),
        network: Some("n10".to_owned()),
        project: Some("web-project".to_owned()),
        service: Some("web-service".to_owned()),
    };
    assert_eq!(names(&desired, &docker)[&key], expected);
    let unknown = Names {
        device: "dev1".to_owned(),
        ..Names::default()
    };
    assert_eq!(names(&desired, &Docker::default())[&key], unknown);
}

#[test]
fn the_same_mac_and_address_on_two_vlans_are_two_containers() {
    let docker = docker(
        &[("n10", 10), ("n20", 20), ("n0", 0)],
        vec![
            container("a", vec![attachment("n20", 1, 1)]),
            container("b", vec![attachment("n10", 1, 1)]),
            container("c", vec![attachment("n0", 1, 1)]),
        ],
    );
    let devices = [
        device(0, 1, 1, Nsid::Other(1)),
        device(10, 1, 1, Nsid::Other(2)),
        device(20, 1, 1, Nsid::Other(3)),
    ];
    check(
        &devices,
        &docker,
        &[("c", "n0"), ("b", "n10"), ("a", "n20")],
    );
}

#[test]
fn several_networks_on_one_parent_are_distinguished() {
    let docker = docker(
        &[("front", 10), ("back", 10)],
        vec![
            container("a", vec![attachment("back", 1, 1)]),
            container("b", vec![attachment("front", 2, 2)]),
            // This container is attached to both networks.
            container(
                "c",
                vec![attachment("back", 3, 3), attachment("front", 4, 4)],
            ),
        ],
    );
    let devices = [
        device(10, 1, 1, Nsid::Other(1)),
        device(10, 2, 2, Nsid::Other(2)),
        device(10, 3, 3, Nsid::Other(3)),
        device(10, 4, 4, Nsid::Other(3)),
    ];
    let expected = [("a", "back"), ("b", "front"), ("c", "back"), ("c", "front")];
    check(&devices, &docker, &expected);
}

#[test]
fn a_device_with_a_changed_mac_is_found_by_its_address() {
    let docker = docker(
        &[("n10", 10)],
        vec![container("web", vec![attachment("n10", 1, 1)])],
    );
    check(&[device(10, 9, 1, NS)], &docker, &[("web", "n10")]);
    // The address does not match on another VLAN.
    check(&[device(20, 9, 1, NS)], &docker, &[("-", "-")]);
}

#[test]
fn an_address_alone_does_not_match_if_another_device_has_the_mac() {
    let docker = docker(
        &[("n10", 10)],
        vec![container("web", vec![attachment("n10", 5, 1)])],
    );
    let thief = device(10, 1, 1, Nsid::Other(1));
    let owner = device(10, 5, 7, Nsid::Other(2));
    check(&[thief, owner], &docker, &[("-", "-"), ("web", "n10")]);
}

#[test]
fn a_reassigned_mac_belongs_to_its_new_container() {
    // `old` changed its MAC from 1 to 9, and then `new` was started with 1.
    let old = container("old", vec![attachment("n10", 1, 1)]);
    let new = container("new", vec![attachment("n10", 1, 2)]);
    let devices = [
        device(10, 1, 2, Nsid::Other(2)),
        device(10, 9, 1, Nsid::Other(1)),
    ];
    for containers in [vec![old.clone(), new.clone()], vec![new, old]] {
        let docker = docker(&[("n10", 10)], containers);
        check(&devices, &docker, &[("new", "n10"), ("old", "n10")]);
    }
}

#[test]
fn a_device_without_a_match_is_named_after_others_in_its_namespace() {
    let web = container(
        "web",
        vec![attachment("n10", 1, 1), attachment("n20", 2, 2)],
    );
    let docker = docker(&[("n10", 10), ("n20", 20)], vec![web]);
    let known = device(10, 1, 1, NS);
    check(
        &[known.clone(), device(20, 9, 9, NS)],
        &docker,
        &[("web", "n10"), ("web", "n20")],
    );
    // If Docker has not created the device, the container is known, but no network.
    check(
        &[known.clone(), device(30, 9, 9, NS)],
        &docker,
        &[("web", "n10"), ("web", "-")],
    );
    // A device in another namespace does not belong to the container.
    check(
        &[known, device(20, 9, 9, Nsid::Other(4))],
        &docker,
        &[("web", "n10"), ("-", "-")],
    );
}

#[test]
fn a_shared_namespace_determines_no_network_if_there_are_two() {
    let attachments = vec![
        attachment("n10", 1, 1),
        attachment("a20", 2, 2),
        attachment("b20", 3, 3),
    ];
    let docker = docker(
        &[("n10", 10), ("a20", 20), ("b20", 20)],
        vec![container("web", attachments)],
    );
    let devices = [device(10, 1, 1, NS), device(20, 9, 9, NS)];
    check(&devices, &docker, &[("web", "n10"), ("web", "-")]);
}

#[test]
fn the_hosts_namespace_or_one_of_two_containers_determines_no_container() {
    let docker = docker(
        &[("n10", 10)],
        vec![
            container("a", vec![attachment("n10", 1, 1)]),
            container("b", vec![attachment("n10", 2, 2)]),
        ],
    );
    let (first, stranger) = (device(10, 1, 1, Nsid::Own), device(10, 9, 9, Nsid::Own));
    check(&[first, stranger], &docker, &[("a", "n10"), ("-", "-")]);
    let shared = [
        device(10, 1, 1, NS),
        device(10, 2, 2, NS),
        device(10, 9, 9, NS),
    ];
    check(&shared, &docker, &[("a", "n10"), ("b", "n10"), ("-", "-")]);
}

#[test]
fn incomplete_networks_are_ignored() {
    let mut docker = docker(
        &[("gone", 99)],
        vec![
            container("a", vec![attachment("gone", 1, 1)]),
            container("b", vec![attachment("bridge", 1, 1)]),
            container("c", vec![attachment("pathless", 1, 1)]),
        ],
    );
    let pathless = DockerNetwork {
        name: "pathless".to_owned(),
        parent: None,
    };
    docker.networks.insert("pathless".to_owned(), pathless);
    check(&[device(10, 1, 1, NS)], &docker, &[("-", "-")]);
}

/// There are few values of each kind, so that many coincide.
const NETWORKS: [(&str, u8); 4] = [("n0", 0), ("a10", 10), ("b10", 10), ("gone", 99)];

prop_compose! {
    fn any_attachment()(network in select(&NETWORKS), mac in 1..4u8, address in 1..4u8) -> DockerAttachment {
        attachment(network.0, mac, address)
    }
}

fn any_docker() -> impl Strategy<Value = Docker> {
    vec(vec(any_attachment(), 0..4), 0..4).prop_map(|containers| {
        let named = containers.into_iter().enumerate();
        let containers = named.map(|(i, attachments)| container(&format!("c{i}"), attachments));
        docker(&NETWORKS, containers.collect())
    })
}

fn any_devices(namespaces: i32) -> impl Strategy<Value = Vec<(Id, EndpointDevice)>> {
    let keys = (select(&[0u8, 10, 20]), 1..5u8);
    btree_map(keys, (1..5u8, 0..namespaces), 0..6).prop_map(|devices| {
        let device = |((vlan, mac), (address, nsid))| device(vlan, mac, address, Nsid::Other(nsid));
        devices.into_iter().map(device).collect()
    })
}

proptest! {
    #[test]
    fn a_network_is_on_the_parent_and_its_container_is_in_it(
        docker in any_docker(),
        mut devices in any_devices(2),
    ) {
        devices.sort_by_key(|(key, _)| *key);
        for ((_, device), (container, network)) in devices.iter().zip(found(&devices, &docker)) {
            if network != "-" {
                prop_assert_eq!(docker.networks[&network].parent.clone(), Some(device.parent.to_string()));
                let of = |it: &&Container| it.name == container;
                let container = docker.containers.iter().find(of).unwrap();
                prop_assert!(container.attachments.iter().any(|it| it.network == network));
            }
        }
    }

    /// Each device is in a namespace of its own, so that none is named after others in its namespace.
    #[test]
    fn an_attachment_is_at_most_one_device(
        docker in any_docker(),
        mut devices in any_devices(1),
    ) {
        for (nsid, (_, device)) in devices.iter_mut().enumerate() {
            device.nsid = Nsid::Other(nsid as i32);
        }
        let found = found(&devices, &docker);
        for container in &docker.containers {
            for network in docker.networks.keys() {
                let devices = found.iter().filter(|(c, n)| (c, n) == (&container.name, network));
                let attachments = container.attachments.iter().filter(|it| it.network == *network);
                prop_assert!(devices.count() <= attachments.count());
            }
        }
    }
}

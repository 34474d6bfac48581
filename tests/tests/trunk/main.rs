//! Level `vm`: trunks with the kernel's own 802.1Q devices and macvlan, over a veth, and over virtio, whose driver
//! has native XDP.

mod bonds;
mod looped;
mod refused;
mod storms;

use vlanfast_tests::{
    fixtures::{
        host_and_containers::{HostAndContainers, PACKET},
        local_devices::LocalDevices,
        macvlans::attach,
    },
    in_the_lab,
    live::trunk::{HOST_ADDRESS, ROUTER_ADDRESS, bulk, corpus_both_ways, settle},
    net::{
        capture::{Packets, Sniffer},
        packet::{BROADCAST, MULTICAST, frame},
        topology::{WIRE, Wire},
    },
    run::{
        observe::eventually,
        program::{Attached, vlanfast},
        require::kernel_at_least,
    },
};

fn tc() -> &'static str {
    if kernel_at_least(6, 6) {
        "tcx"
    } else {
        "clsact"
    }
}

#[test]
fn a_vlan_device_in_the_trunks_place_is_refused_and_the_trunk_named() {
    in_the_lab!("vlan device");
    let wire = Wire::veth().unwrap();
    wire.vlan(10).unwrap();
    let device = format!("{}.10", wire.trunk);
    let ended = vlanfast(&wire.host, &["attach", &device]).unwrap();
    assert_eq!(ended.code, Some(4), "{}", ended.stderr);
    let advice = format!("vlanfast attach {}", wire.trunk);
    assert!(
        ended.stderr.contains(&advice) && ended.stderr.contains("VLAN 10"),
        "{}",
        ended.stderr
    );
    assert_eq!(ended.stderr.trim_end().lines().count(), 1);
}

#[test]
fn auto_takes_native_xdp_on_virtio_and_tc_on_a_veth() {
    in_the_lab!("auto");
    let virtio = Wire::virtio().unwrap();
    let attached = Attached::start(&virtio.host, &virtio.trunk, &[]).unwrap();
    assert_eq!(attached.kind("ingress").unwrap(), "xdp-native");
    assert_eq!(attached.kind("egress").unwrap(), tc());
    assert_eq!(attached.status().unwrap()["ingress"]["chosen"], "xdp");
    attached.stop().unwrap();

    let veth = Wire::veth().unwrap();
    let attached = Attached::start(&veth.host, &veth.trunk, &[]).unwrap();
    assert_eq!(attached.kind("ingress").unwrap(), tc());
    let status = attached.status().unwrap();
    assert!(
        status["ingress"]["reason"]
            .as_str()
            .unwrap()
            .starts_with("veth"),
        "{status}"
    );
    attached.stop().unwrap();
}

#[test]
fn status_lists_the_vlan_devices_by_vid_and_not_by_name() {
    in_the_lab!("status");
    let wire = Wire::veth().unwrap();
    let trunk = &wire.trunk;
    wire.host
        .run(&format!(
            "ip link add link {trunk} name uplink type vlan id 30 && \
             ip link add link {trunk} name vlan7 type vlan id 20 && \
             ip link add link {trunk} name service type vlan protocol 802.1ad id 40"
        ))
        .unwrap();
    let attached = Attached::start(&wire.host, trunk, &[]).unwrap();
    let vlans = &attached.status().unwrap()["vlans"];
    let expected = serde_json::json!([
        {"vlan": 20, "parent": "vlan7", "endpoints": 0, "listeners": [], "host_access": false, "shortcut_to": [], "shortcut_from": null},
        {"vlan": 30, "parent": "uplink", "endpoints": 0, "listeners": [], "host_access": false, "shortcut_to": [], "shortcut_from": null},
    ]);
    assert_eq!(*vlans, expected);
    attached.stop().unwrap();
}

#[test]
fn tc_on_virtio_counts_every_frame_both_ways() {
    in_the_lab!("virtio tc");
    corpus_both_ways(&Wire::virtio().unwrap(), "tc", tc()).unwrap();
}

#[test]
fn native_xdp_on_virtio_counts_every_frame_both_ways() {
    in_the_lab!("virtio xdp");
    corpus_both_ways(&Wire::virtio().unwrap(), "xdp", "xdp-native").unwrap();
}

#[test]
fn generic_xdp_on_virtio_counts_every_frame_both_ways() {
    in_the_lab!("virtio xdp-generic");
    corpus_both_ways(&Wire::virtio().unwrap(), "xdp-generic", "xdp-generic").unwrap();
}

/// The frames get their tags from 802.1Q devices, which leave them in metadata on a veth.
#[test]
fn tags_that_travel_as_metadata_are_counted_for_their_vlan() {
    in_the_lab!("metadata");
    let wire = Wire::veth().unwrap();
    for vid in [10, 20, 4094] {
        wire.vlan(vid).unwrap();
    }
    let attached = Attached::start(&wire.host, &wire.trunk, &[]).unwrap();
    let sniffer = Sniffer::start(&wire.router.path(), WIRE).unwrap();
    for (vid, count) in [(10, 7), (20, 5), (4094, 3)] {
        let router = Packets::open(&wire.router.path(), &format!("{WIRE}.{vid}"), false).unwrap();
        let host = format!("{}.{vid}", wire.trunk);
        let host = Packets::open(&wire.host.path(), &host, false).unwrap();
        for destination in [[0x02, 0, 0, 0, 0, 0x0a], MULTICAST, BROADCAST] {
            let bytes = frame(destination, &[0x88, 0xb5], 100);
            (0..count).for_each(|_| router.send(&bytes).unwrap());
            (0..2 * count).for_each(|_| host.send(&bytes).unwrap());
        }
    }
    std::thread::sleep(std::time::Duration::from_millis(500));
    let (at_router, from_router) = sniffer.stop().unwrap();
    assert_eq!(from_router.len(), 3, "{from_router:?}");
    assert!(
        from_router
            .values()
            .all(|sum| sum.packets.iter().all(|&count| count >= 3))
    );
    settle(&attached, &from_router, &at_router);
    attached.stop().unwrap();
}

/// Runs a bulk transfer each way between the router and a container, over VLAN 10.
fn bulk_to_a_container(wire: &Wire, ingress: &str) {
    wire.vlan(10).unwrap();
    wire.router
        .run(&format!("ip addr add {ROUTER_ADDRESS}/24 dev {WIRE}.10"))
        .unwrap();
    let container = wire.container(10, HOST_ADDRESS).unwrap();
    bulk(wire, &container, ingress).unwrap();
}

#[test]
fn a_bulk_transfer_to_a_container_over_a_veth_is_exact_through_gro() {
    in_the_lab!("bulk veth");
    let wire = Wire::veth().unwrap();
    wire.host
        .run(&format!("ethtool -K {} gro on", wire.trunk))
        .unwrap();
    bulk_to_a_container(&wire, "tc");
}

#[test]
fn a_bulk_transfer_to_a_container_over_virtio_is_exact_through_gro() {
    in_the_lab!("bulk virtio tc");
    bulk_to_a_container(&Wire::virtio().unwrap(), "tc");
}

#[test]
fn a_bulk_transfer_to_a_container_is_exact_through_native_xdp() {
    in_the_lab!("bulk virtio xdp");
    bulk_to_a_container(&Wire::virtio().unwrap(), "xdp");
}

#[test]
fn a_bulk_transfer_to_a_container_is_exact_through_generic_xdp() {
    in_the_lab!("bulk virtio xdp-generic");
    bulk_to_a_container(&Wire::virtio().unwrap(), "xdp-generic");
}

/// Tests host access over VLAN 10, where tags travel as metadata; returns the minimum length of the bulk buffers.
fn host_access(wire: &Wire, ingress: &str, modes: &[&str], pings: u32) -> u64 {
    let mut shortest = u64::MAX;
    wire.vlan(10).unwrap();
    let device = format!("{}.10", wire.trunk);
    let priority = format!("ip link set {device} type vlan egress-qos-map 0:5");
    wire.host.run(&priority).unwrap();
    for mode in modes {
        let lan = HostAndContainers::new(wire, 10, mode).unwrap();
        let announced = lan.announced().unwrap();
        let tag = [0x81, 0, 5 << 5, 10];
        assert!(announced.iter().all(|frame| frame[12..16] == tag));
        assert_eq!(lan.asked_for().unwrap().len(), 4);
        let arguments = ["--host-access", "10", "--ingress", ingress];
        let attached = Attached::start(&wire.host, &wire.trunk, &arguments).unwrap();
        shortest = shortest.min(lan.talks(&attached, pings).unwrap());
        assert_eq!(lan.containers_reach().unwrap(), *mode == "bridge");
        lan.announces().unwrap();
        assert_eq!(lan.announced().unwrap(), announced);
        lan.detects_no_duplicates().unwrap();
        lan.detects_duplicates().unwrap();
        attached.stop().unwrap();
        lan.leave().unwrap();
    }
    shortest
}

#[test]
fn host_and_container_of_a_vlan_reach_each_other() {
    in_the_lab!("host access");
    let modes = ["bridge", "private", "vepa"];
    let shortest = host_access(&Wire::veth().unwrap(), "tc", &modes, 100);
    assert!(shortest > 2 * PACKET, "buffers were split: {shortest}");
}

#[test]
fn host_and_container_behind_virtio_reach_each_other() {
    in_the_lab!("host access, virtio");
    // The bulk buffers may have any length, because the lab's NICs accept no merged packets.
    host_access(&Wire::virtio().unwrap(), "xdp", &["bridge"], 1000);
}

#[test]
fn a_device_next_to_the_vlans_is_redirected_to() {
    in_the_lab!("deliver");
    let virtio = Wire::virtio().unwrap();
    // Virtio leaves the tags in the bytes, and a veth has them as metadata.
    for wire in [Wire::veth().unwrap(), virtio] {
        wire.vlan(10).unwrap();
        let neighbours = LocalDevices::new(&wire, 10).unwrap();
        let arguments = ["--ingress", "tc"];
        let attached = neighbours.attach(&arguments).unwrap();
        neighbours.talk(&attached, false).unwrap();
        attached.stop().unwrap();
        let arguments = [&arguments[..], &["--deliver", "redirect"]].concat();
        let attached = neighbours.attach(&arguments).unwrap();
        neighbours.talk(&attached, true).unwrap();
        neighbours.elsewhere_nothing_changes(&attached).unwrap();
        neighbours.reaches_the_tap(&attached).unwrap();
        attached.stop().unwrap();
    }
}

/// If such a device could not be read, its VLAN would seem to have no endpoints.
#[test]
fn an_alias_that_is_not_utf8_does_not_hide_the_vlan_of_its_device() {
    in_the_lab!("alias between");
    let wire = Wire::veth().unwrap();
    wire.vlan(10).unwrap();
    let _inside = wire.container(10, "192.0.2.10").unwrap();
    let attached = attach(&wire, &["--shed", "vlan", "--storm-limit", "20"]);
    eventually("the endpoint", &attached, |endpoints| endpoints.len() == 1);
    let before = attached.status().unwrap();
    let parent = format!("{}.10", wire.trunk);
    let alias = format!("ip link set {parent} alias \"$(printf 'B\\374ro')\"");
    wire.host.run(&alias).unwrap();
    let _next = wire.container(10, "192.0.2.11").unwrap();
    eventually("the next", &attached, |endpoints| endpoints.len() == 2);
    let mut after = attached.status().unwrap();
    assert_eq!(
        after["vlans"].as_array().unwrap().len(),
        before["vlans"].as_array().unwrap().len()
    );
    for row in after["vlans"].as_array_mut().unwrap() {
        if row["vlan"] == 10 {
            assert_eq!(row["endpoints"], 2);
            assert_eq!(row["parent"], parent);
        }
    }
    attached.stop().unwrap();
}

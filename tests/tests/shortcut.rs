//! Level `vm`: packets between two VLANs of one host, through the router and by the shortcut.

use std::{
    thread,
    time::{Duration, Instant},
};

use aya::programs::{SchedClassifier, TcAttachType};
use serde_json::Value;
use vlanfast_tests::{
    fixtures::{
        host_and_containers::PACKET,
        two_vlans::{FAR, NEAR, TC, TwoVlans, XDP, shortcuts, without_offloads},
    },
    in_the_lab,
    net::{
        capture::Sniffer,
        namespace::{Netns, in_netns},
        ping::{counter, is_whole, ping},
        topology::{WIRE, Wire},
        transfer::transfer,
    },
    run::{program::Attached, require::kernel_at_least},
};

const ALLOWED: &[&str] = &["--shortcut", "allow", "--shortcut-allow", "10:20"];

fn allowed(vlans: &TwoVlans) -> Attached {
    vlans.attach(ALLOWED).unwrap()
}

/// Sends bulk data from one container to another; returns the mean length of the buffers in which it arrives.
fn bulk(from: &Netns, to: &Netns, address: &'static str) -> u64 {
    let sniffer = Sniffer::start(&to.path(), "eth0").unwrap();
    transfer(from, to, address).unwrap();
    let (received, _) = sniffer.stop().unwrap();
    let packets: u64 = received.values().flat_map(|sum| sum.packets).sum();
    let bytes: u64 = received.values().map(|sum| sum.bytes).sum();
    bytes / packets
}

/// Runs the test on a wire where one of these hooks reads ingress; returns the minimum length of the bulk buffers.
fn allow(wire: Wire, ingress: &[&str]) -> u64 {
    let vlans = TwoVlans::on(wire).unwrap();
    let attached = vlans.attach_by(ingress, &[]).unwrap();
    let before = vlans.routed().unwrap();
    vlans.pings(50, 63).unwrap();
    assert!(vlans.routed().unwrap() - before >= 400, "by the router");
    attached.stop().unwrap();

    let attached = vlans.attach_by(ingress, ALLOWED).unwrap();
    let status = attached.status().unwrap();
    for (vlan, other) in status["vlans"].as_array().unwrap().iter().zip([20, 10]) {
        let from = match kernel_at_least(6, 6) {
            true => &vlan["parent"],
            false => &Value::from(vlans.wire.trunk.as_str()),
        };
        assert_eq!(&vlan["shortcut_from"], from, "{status:#}");
        assert_eq!(
            vlan["shortcut_to"],
            serde_json::json!([other]),
            "{status:#}"
        );
    }
    let before = vlans.routed().unwrap();
    vlans.pings(50, 63).unwrap();
    let there = bulk(&vlans.near, &vlans.far, FAR[0]);
    let back = bulk(&vlans.far, &vlans.near, NEAR[1]);
    // The kernel verifies the checksums where no device on the path vouches for them.
    let behind = without_offloads(&vlans.near).unwrap();
    let single = bulk(&behind, &vlans.far, FAR[0]);
    assert!(single < PACKET, "{single}");
    for end in [&behind, &vlans.far] {
        assert_eq!(counter(end, "InCsumErrors").unwrap(), 0);
    }
    assert_eq!(
        vlans.routed().unwrap() - before,
        0,
        "nothing is for the router"
    );
    assert!(shortcuts(&attached, 10).unwrap() > 200 && shortcuts(&attached, 20).unwrap() > 200);
    let counters = attached.row(10).unwrap();
    // The few packets are the router's answers for its own addresses.
    let unicast = counters["rx"]["packets"]["unicast"].as_u64().unwrap();
    assert!(unicast < 20, "{counters:#}");
    // The sender fragments larger packets, and fragments go through the router.
    let said = ping(&vlans.near, FAR[0], 3, "-s 4000").unwrap();
    assert!(
        is_whole(&said) && vlans.routed().unwrap() > before,
        "{said}"
    );
    attached.stop().unwrap();
    there.min(back)
}

#[test]
fn allowed_packets_bypass_the_router() {
    in_the_lab!("shortcut");
    let shortest = allow(Wire::veth().unwrap(), TC);
    assert!(shortest > 2 * PACKET, "buffers were split: {shortest}");
}

#[test]
fn allowed_packets_bypass_the_router_behind_virtio() {
    in_the_lab!("shortcut, virtio");
    // The bulk buffers may have any length, because the lab's NICs accept no merged packets.
    allow(Wire::virtio().unwrap(), XDP);
}

#[test]
fn a_route_is_traced_through_the_router_all_the_same() {
    in_the_lab!("shortcut, traceroute");
    let vlans = TwoVlans::new().unwrap();
    for arguments in [
        &[][..],
        &["--shortcut", "allow", "--shortcut-allow", "20:10,30:40"],
    ] {
        let attached = vlans.attach(arguments).unwrap();
        for (address, router) in FAR.into_iter().zip(["10.0.10.1", "fd00:10::1"]) {
            let said = ping(&vlans.near, address, 1, "-t 1").unwrap();
            let expired = said.contains("Time to live exceeded") || said.contains("Hop limit");
            assert!(expired && said.contains(router), "{said}");
            let said = ping(&vlans.near, address, 1, "-t 2").unwrap();
            assert!(is_whole(&said), "{said}");
        }
        attached.stop().unwrap();
    }
}

#[test]
fn packets_that_are_not_allowed_or_too_large_go_to_the_router() {
    in_the_lab!("shortcut, not taken");
    let vlans = TwoVlans::new().unwrap();
    let attached = vlans
        .attach(&["--shortcut", "allow", "--shortcut-allow", "10:30"])
        .unwrap();
    let before = vlans.routed().unwrap();
    vlans.pings(50, 63).unwrap();
    assert!(vlans.routed().unwrap() - before >= 400);
    assert_eq!(shortcuts(&attached, 10).unwrap(), 0);
    attached.stop().unwrap();

    let attached = allowed(&vlans);
    let trunk = &vlans.wire.trunk;
    vlans
        .wire
        .host
        .run(&format!("ip link set {trunk}.20 mtu 1400"))
        .unwrap();
    let line = format!("ip link set {WIRE}.20 mtu 1400");
    vlans.wire.router.run(&line).unwrap();
    thread::sleep(Duration::from_millis(300));
    let said = ping(&vlans.near, FAR[0], 1, "-M do -s 1400").unwrap();
    assert!(
        said.contains("Frag needed and DF set (mtu = 1400)"),
        "{said}"
    );
    let before = shortcuts(&attached, 10).unwrap();
    let said = ping(&vlans.near, FAR[0], 10, "-M do -s 1372").unwrap();
    assert!(is_whole(&said), "{said}");
    assert!(shortcuts(&attached, 10).unwrap() >= before + 10);
    attached.stop().unwrap();
}

#[test]
fn a_container_that_goes_takes_its_routes_with_it() {
    in_the_lab!("shortcut, sync");
    let vlans = TwoVlans::new().unwrap();
    let attached = allowed(&vlans);
    assert!(is_whole(&ping(&vlans.near, FAR[0], 3, "").unwrap()));
    vlans
        .far
        .run("ip addr del 10.0.20.2/24 dev eth0 && ip addr add 10.0.20.3/24 dev eth0")
        .unwrap();
    vlans.far.run("ip route add default via 10.0.20.1").unwrap();
    thread::sleep(Duration::from_millis(300));
    let taken = shortcuts(&attached, 10).unwrap();
    let said = ping(&vlans.near, FAR[0], 2, "").unwrap();
    assert!(said.contains("100% packet loss"), "{said}");
    assert_eq!(shortcuts(&attached, 10).unwrap(), taken);
    assert!(is_whole(&ping(&vlans.near, "10.0.20.3", 3, "").unwrap()));
    assert!(shortcuts(&attached, 10).unwrap() > taken);
    attached.stop().unwrap();
}

#[test]
fn without_a_heartbeat_every_packet_goes_to_the_router() {
    in_the_lab!("shortcut, no heartbeat");
    let vlans = TwoVlans::new().unwrap();
    let attached = allowed(&vlans);
    let before = vlans.routed().unwrap();
    thread::scope(|scope| {
        let talking = scope.spawn(|| ping(&vlans.near, FAR[0], 800, "").unwrap());
        thread::sleep(Duration::from_secs(2));
        assert_eq!(vlans.routed().unwrap() - before, 0);
        attached.kill().unwrap();
        let said = talking.join().unwrap();
        assert!(is_whole(&said), "{said}");
    });
    assert!(vlans.routed().unwrap() > before);
    let attached = allowed(&vlans);
    let before = vlans.routed().unwrap();
    assert!(is_whole(&ping(&vlans.near, FAR[0], 10, "").unwrap()));
    assert_eq!(vlans.routed().unwrap() - before, 0);
    attached.stop().unwrap();
}

/// Returns the device of a VLAN, as `ip` shows it.
fn device(vlans: &TwoVlans, vid: u16) -> Value {
    let (host, trunk) = (&vlans.wire.host, &vlans.wire.trunk);
    let said = host.run(&format!("ip -s -j link show dev {trunk}.{vid}"));
    let devices: Value = serde_json::from_str(&said.unwrap()).unwrap();
    devices[0].clone()
}

/// Counts the egress programs on the devices of these VLANs.
fn programs(vlans: &TwoVlans, vids: &[u16]) -> Vec<usize> {
    let count = |vid: &u16| {
        let device = format!("{}.{vid}", vlans.wire.trunk);
        let query = move || {
            let (_, programs) = SchedClassifier::query_tcx(&device, TcAttachType::Egress)?;
            Ok(programs.len())
        };
        in_netns(&vlans.wire.host.path(), query).unwrap()
    };
    vids.iter().map(count).collect()
}

/// Waits until a new device has its program.
fn eventually(vlans: &TwoVlans, vid: u16, count: usize) {
    let begin = Instant::now();
    while programs(vlans, &[vid]) != [count] {
        assert!(begin.elapsed() < Duration::from_secs(10), "VLAN {vid}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// Recreates VLAN 20: its device gets another index, and its container another MAC.
fn make_vlan_20_anew(vlans: &mut TwoVlans) {
    let (host, trunk) = (&vlans.wire.host, &vlans.wire.trunk);
    host.run(&format!(
        "ip link del {trunk}.20 && ip link add link {trunk} name {trunk}.20 type vlan id 20 && \
         ip link set {trunk}.20 up"
    ))
    .unwrap();
    vlans.far = vlans.wire.container(20, FAR[0]).unwrap();
    vlans.far.run("ip route add default via 10.0.20.1").unwrap();
}

#[test]
fn from_linux_6_6_on_the_shortcut_starts_at_the_vlan_devices() {
    in_the_lab!("shortcut, from VLAN devices");
    let has_tcx = kernel_at_least(6, 6);
    let one = if has_tcx { 1 } else { 0 };
    let count = |vlans: &TwoVlans, vids: &[u16]| match has_tcx {
        true => programs(vlans, vids),
        // Without tcx there is no such query, and no program to find.
        false => vids.iter().map(|_| 0).collect(),
    };
    let mut vlans = TwoVlans::new().unwrap();
    vlans.wire.vlan(30).unwrap();
    let attached = allowed(&vlans);
    assert_eq!(count(&vlans, &[10, 20, 30]), [one, one, 0]);
    let sent = |vlans: &TwoVlans| {
        device(vlans, 10)["stats64"]["tx"]["packets"]
            .as_u64()
            .unwrap()
    };
    let (before, routed) = (sent(&vlans), vlans.routed().unwrap());
    vlans.pings(50, 63).unwrap();
    assert_eq!(vlans.routed().unwrap() - routed, 0);
    // Packets that pass the VLAN's device continue to the trunk.
    match sent(&vlans) - before {
        left if has_tcx => assert!(left < 20, "{left} left by the device"),
        left => assert!(left >= 200, "{left} left by the device"),
    }

    make_vlan_20_anew(&mut vlans);
    if has_tcx {
        eventually(&vlans, 20, one);
    }
    thread::sleep(Duration::from_millis(300));
    let routed = vlans.routed().unwrap();
    let said = ping(&vlans.near, FAR[0], 20, "").unwrap();
    assert!(is_whole(&said), "{said}");
    assert_eq!(vlans.routed().unwrap() - routed, 0);

    // None of these programs is pinned.
    attached.kill().unwrap();
    assert_eq!(count(&vlans, &[10, 20, 30]), [0, 0, 0]);
    assert!(is_whole(&ping(&vlans.near, FAR[0], 20, "").unwrap()));
    let attached = allowed(&vlans);
    assert_eq!(count(&vlans, &[10, 20, 30]), [one, one, 0]);
    attached.stop().unwrap();
    assert_eq!(count(&vlans, &[10, 20, 30]), [0, 0, 0]);

    // With logging of every packet, the trunk does all the work.
    let arguments = ["-v", "--shortcut", "allow", "--shortcut-allow", "10:20"];
    let attached = vlans.attach(&arguments).unwrap();
    assert_eq!(count(&vlans, &[10, 20, 30]), [0, 0, 0]);
    let before = shortcuts(&attached, 10).unwrap();
    assert!(is_whole(&ping(&vlans.near, FAR[0], 20, "").unwrap()));
    assert!(shortcuts(&attached, 10).unwrap() >= before + 20);
    attached.stop().unwrap();
}

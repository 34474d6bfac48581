//! Receivers without an entry in the tables: `status` shows them, and no frame is shed that they may want. These
//! tests use the trunk itself; `sync.rs` of level `vm` covers VLANs.

use std::{thread, time::Duration};

use vlanfast::maps::tables::settings;
use vlanfast_common::Settings;
use vlanfast_tests::{
    fixtures::macvlans::{attach, container},
    net::{capture::Packets, namespace::Netns, topology::Wire},
    require,
    run::{
        observe::{endpoint, eventually, listeners},
        program::{Attached, vlanfast},
        residue::Residue,
    },
};

use super::pins::opened;

/// The time that a test waits to see that nothing changes.
const QUIET: Duration = Duration::from_millis(300);

fn warnings(attached: &Attached) -> String {
    attached.status().unwrap()["warnings"].to_string()
}

/// Creates a macvlan or macvtap on the trunk.
fn upper(wire: &Wire, name: &str, kind: &str) {
    let trunk = &wire.trunk;
    wire.host
        .run(&format!(
            "ip link add link {trunk} name {name} type {kind} && ip link set {name} up"
        ))
        .unwrap();
}

#[test]
fn receivers_without_an_entry_are_shown() {
    require!("receivers", nix::unistd::geteuid().is_root(), "needs root");
    let wire = Wire::veth().unwrap();
    let (host, trunk) = (&wire.host, &wire.trunk);
    let attached = attach(&wire, &["--shed", "mac"]);
    listeners(&attached, 0, &[]);
    for (kind, expected) in [
        ("macvlan mode passthru", &["greedy"][..]),
        ("macvlan mode source", &["source"]),
        ("macvtap mode passthru", &["greedy", "guests"]),
        ("macvtap mode bridge", &["guests"]),
        ("macvlan mode vepa", &[]),
    ] {
        upper(&wire, "mv0", kind);
        eventually(kind, &attached, |endpoints| {
            endpoint(endpoints, "mv0").is_some()
        });
        listeners(&attached, 0, expected);
        host.run("ip link del mv0").unwrap();
        listeners(&attached, 0, &[]);
    }
    assert_eq!(warnings(&attached), "[]");
    host.run(&format!(
        "ip link add br0 type bridge && ip link set {trunk} master br0 && ip link set br0 up"
    ))
    .unwrap();
    listeners(&attached, 0, &["port"]);
    // The settings of the programs are written before the report of `status`.
    let note = || settings(&opened(trunk)).unwrap().incomplete;
    assert_eq!(note() & Settings::VLANS, Settings::VLANS);
    assert!(warnings(&attached).contains("VLANs without a device on this host are not shed"));
    let text = vlanfast(host, &["status", trunk]).unwrap().stdout;
    let line = format!("{trunk}, 0 endpoints; not steered, no storm limit, not shed: a port of");
    assert!(text.contains(&line), "{text}");
    host.run(&format!("ip link set {trunk} nomaster")).unwrap();
    listeners(&attached, 0, &[]);
    assert_eq!(warnings(&attached), "[]");
    eventually("the note", &attached, |_| note() & Settings::VLANS == 0);
    attached.stop().unwrap();
}

#[test]
fn a_capture_is_told_from_promiscuous_mode_by_hand_and_from_those_of_containers() {
    require!("capture", nix::unistd::geteuid().is_root(), "needs root");
    let wire = Wire::veth().unwrap();
    wire.keep_tags().unwrap();
    let (host, trunk) = (&wire.host, &wire.trunk);
    let attached = attach(&wire, &["--ingress", "xdp", "--shed", "vlan"]);
    let inside = container(&wire, "mv0", "192.0.2.10");
    eventually("the endpoint", &attached, |endpoints| endpoints.len() == 1);

    let capture = |netns: &Netns, device: &str| {
        let socket = Packets::open(&netns.path(), device, true).unwrap();
        socket.promiscuous().unwrap()
    };
    let on_the_trunk = capture(host, trunk);
    listeners(&attached, 0, &["promiscuous"]);
    assert!(warnings(&attached).contains("does not see the frames that are shed"));
    // Captures inside the container come and go, and do not explain the trunk's promiscuous mode.
    let inside_too = capture(&inside, "mv0");
    thread::sleep(QUIET);
    listeners(&attached, 0, &["promiscuous"]);
    drop(on_the_trunk);
    // The kernel sends no notification of that: the trunk stays promiscuous because of the container.
    drop(inside_too);
    listeners(&attached, 0, &[]);

    let inside_alone = capture(&inside, "mv0");
    thread::sleep(QUIET);
    listeners(&attached, 0, &[]);
    drop(inside_alone);
    host.run(&format!("ip link set {trunk} promisc on"))
        .unwrap();
    thread::sleep(QUIET);
    listeners(&attached, 0, &[]);
    assert_eq!(warnings(&attached), "[]");
    attached.stop().unwrap();
}

#[test]
fn shedding_is_refused_on_a_trunk_with_hidden_receivers() {
    require!("shed", nix::unistd::geteuid().is_root(), "needs root");
    let wire = Wire::veth().unwrap();
    let (host, trunk) = (&wire.host, &wire.trunk);
    host.run(&format!(
        "ip link add br0 type bridge && ip link set {trunk} master br0"
    ))
    .unwrap();
    let before = Residue::of(host, trunk).unwrap();
    for shed in ["vlan", "mac"] {
        let ended = vlanfast(host, &["attach", trunk, "--metrics", "off", "--shed", shed]).unwrap();
        let text = &ended.stderr;
        assert_eq!(ended.code, Some(4), "{text}");
        assert_eq!(text.trim_end().lines().count(), 1, "{text}");
        for word in ["--shed", trunk, "a port of a bridge", "leave --shed out"] {
            assert!(text.contains(word), "no '{word}' in: {text}");
        }
    }
    before.wait_until_as_before(host, trunk).unwrap();
    // An earlier attachment stays, and a process without shedding takes it over.
    attach(&wire, &[]).kill().unwrap();
    let ended = vlanfast(
        host,
        &["attach", trunk, "--metrics", "off", "--shed", "mac"],
    )
    .unwrap();
    assert_eq!(ended.code, Some(4), "{ended:?}");
    let attached = attach(&wire, &["--dry-run", "--storm-limit", "7"]);
    let policy = attached.status().unwrap()["policy"].clone();
    let expected = serde_json::json!({
        "steer": true, "storm_limit": 7, "group_limit": 10_000, "shed": "off", "dry_run": true, "host_access": false,
        "shortcut": "off", "shortcut_refresh": null, "deliver": "kernel",
    });
    assert_eq!(policy, expected);
    attached.stop().unwrap();
    before.wait_until_as_before(host, trunk).unwrap();
}

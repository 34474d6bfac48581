//! The host reaches its containers, with macvlans on the trunk itself; `trunk` of level `vm` covers VLANs.

use std::{thread, time::Duration};

use vlanfast_tests::{
    fixtures::host_and_containers::{HostAndContainers, PACKET},
    net::topology::Wire,
    require,
    run::{program::Attached, require::in_the_lab},
};

#[test]
fn host_and_container_reach_each_other_in_every_mode() {
    require!("access", nix::unistd::geteuid().is_root(), "needs root");
    // Under emulation this takes minutes, and level `vm` covers the modes on a VLAN.
    let (pings, modes) = if in_the_lab() { (50, 1) } else { (1000, 3) };
    for (mode, ingress) in [
        ("bridge", "tc"),
        ("private", "xdp"),
        ("vepa", "xdp-generic"),
    ]
    .into_iter()
    .take(modes)
    {
        let wire = Wire::veth().unwrap();
        wire.keep_tags().unwrap();
        let lan = HostAndContainers::new(&wire, 0, mode).unwrap();
        let announced = lan.announced().unwrap();
        assert_eq!(lan.asked_for().unwrap().len(), 4);
        assert_eq!(lan.containers_reach().unwrap(), mode == "bridge");
        let arguments = ["--host-access", "all", "--ingress", ingress];
        let attached = Attached::start(&wire.host, &wire.trunk, &arguments).unwrap();
        assert!(lan.talks(&attached, pings).unwrap() > 2 * PACKET);
        assert_eq!(lan.containers_reach().unwrap(), mode == "bridge");
        // The receiver of a request learns the sender's MAC, and need not ask in turn.
        assert!(lan.asked_for().unwrap().len() >= 2, "on the wire as well");
        lan.announces().unwrap();
        assert_eq!(lan.announced().unwrap(), announced);
        lan.detects_no_duplicates().unwrap();
        lan.detects_duplicates().unwrap();
        attached.stop().unwrap();
    }
}

#[test]
fn without_the_switch_or_a_heartbeat_they_do_not_reach_each_other() {
    require!("no access", nix::unistd::geteuid().is_root(), "needs root");
    let wire = Wire::veth().unwrap();
    let lan = HostAndContainers::new(&wire, 0, "bridge").unwrap();
    let start = |access: &str| {
        let arguments = ["--host-access", access];
        Attached::start(&wire.host, &wire.trunk, &arguments).unwrap()
    };
    for access in ["off", "10,20"] {
        let attached = start(access);
        assert_eq!(lan.reaches().unwrap(), [false; 2], "{access}");
        attached.stop().unwrap();
    }
    let attached = start("0");
    assert_eq!(lan.reaches().unwrap(), [true; 2]);
    attached.kill().unwrap();
    // A heartbeat is valid for 3 s.
    thread::sleep(Duration::from_secs(4));
    assert_eq!(lan.reaches().unwrap(), [false; 2]);
    let attached = start("0");
    assert_eq!(lan.reaches().unwrap(), [true; 2]);
    attached.stop().unwrap();
}

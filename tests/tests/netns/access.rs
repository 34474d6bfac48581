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
        let network = HostAndContainers::new(&wire, 0, mode).unwrap();
        let announced = network.announced().unwrap();
        assert_eq!(network.asked_for().unwrap().len(), 4);
        assert_eq!(network.containers_reach().unwrap(), mode == "bridge");
        let arguments = ["--host-access", "all", "--ingress", ingress];
        let attached = Attached::start(&wire.host, &wire.trunk, &arguments).unwrap();
        assert!(network.talks(&attached, pings).unwrap() > 2 * PACKET);
        assert_eq!(network.containers_reach().unwrap(), mode == "bridge");
        // The receiver of a request learns the sender's MAC, and need not ask in turn.
        assert!(
            network.asked_for().unwrap().len() >= 2,
            "on the wire as well"
        );
        network.announces().unwrap();
        assert_eq!(network.announced().unwrap(), announced);
        network.detects_no_duplicates().unwrap();
        network.detects_duplicates().unwrap();
        attached.stop().unwrap();
    }
}

#[test]
fn without_the_switch_or_a_heartbeat_they_do_not_reach_each_other() {
    require!("no access", nix::unistd::geteuid().is_root(), "needs root");
    let wire = Wire::veth().unwrap();
    let network = HostAndContainers::new(&wire, 0, "bridge").unwrap();
    let start = |access: &str| {
        let arguments = ["--host-access", access];
        Attached::start(&wire.host, &wire.trunk, &arguments).unwrap()
    };
    for access in ["off", "10,20"] {
        let attached = start(access);
        assert_eq!(network.reaches().unwrap(), [false; 2], "{access}");
        attached.stop().unwrap();
    }
    let attached = start("0");
    assert_eq!(network.reaches().unwrap(), [true; 2]);
    attached.kill().unwrap();
    // A heartbeat is valid for 3 s.
    thread::sleep(Duration::from_secs(4));
    assert_eq!(network.reaches().unwrap(), [false; 2]);
    let attached = start("0");
    assert_eq!(network.reaches().unwrap(), [true; 2]);
    attached.stop().unwrap();
}

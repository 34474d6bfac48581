//! The `rx-vlan-offload` of the trunk, which is turned off for XDP and on again.

use vlanfast_tests::{
    fixtures::macvlans::attach,
    live::trunk::settle,
    net::{
        capture::Packets,
        tally::{Cast, CounterKey, Sums, add},
        topology::{WIRE, Wire},
    },
    require,
    run::{
        crash::killed_after,
        pins::is_pinned,
        program::{Attached, binary, detach, vlanfast},
        require::in_the_lab,
        residue::Residue,
    },
};

const MANAGED: [&str; 3] = ["--ingress", "xdp", "--manage-offloads"];

/// Creates a wire whose peer leaves tags in the bytes, and whose trunk would strip them.
fn wire() -> Wire {
    let wire = Wire::veth().unwrap();
    let peer = format!("ethtool -K {WIRE} txvlan off");
    wire.router.run(&peer).unwrap();
    wire
}

fn strips(wire: &Wire) -> bool {
    let lines = wire
        .host
        .run(&format!("ethtool -k {}", wire.trunk))
        .unwrap();
    lines.contains("rx-vlan-offload: on")
}

fn managed(attached: &Attached) -> bool {
    attached.status().unwrap()["ingress"]["managed_offload"] == true
}

/// Builds a broadcast of VLAN 10 that is 64 bytes long.
fn tagged() -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, 0x0b, 0x81, 0, 0, 10, 0x88, 0xb5]);
    frame.resize(64, 0);
    frame
}

#[test]
fn tags_are_left_to_xdp_for_as_long_as_it_is_attached() {
    require!("offload", nix::unistd::geteuid().is_root(), "needs root");
    let wire = wire();
    let (host, trunk) = (&wire.host, &wire.trunk);
    let before = Residue::of(host, trunk).unwrap();
    for ingress in ["xdp", "xdp-generic"] {
        let attached = attach(&wire, &["--ingress", ingress, "--manage-offloads"]);
        assert!(managed(&attached) && !strips(&wire));
        let router = Packets::open(&wire.router.path(), WIRE, false).unwrap();
        let mut rx = Sums::new();
        for _ in 0..5 {
            router.send(&tagged()).unwrap();
        }
        add(&mut rx, CounterKey::Vlan(10), Cast::Broadcast, 5, 64);
        settle(&attached, &rx, &Sums::new());
        attached.stop().unwrap();
        before.wait_until_as_before(host, trunk).unwrap();
    }
    // On a software device, XDP is used only on request.
    let attached = attach(&wire, &["--manage-offloads"]);
    assert_eq!(attached.status().unwrap()["ingress"]["chosen"], "tc");
    assert!(!managed(&attached) && strips(&wire));
    attached.stop().unwrap();
}

#[test]
fn after_a_crash_the_offload_is_turned_on_again_unless_xdp_stays() {
    require!("after", nix::unistd::geteuid().is_root(), "needs root");
    let wire = wire();
    let (host, trunk) = (&wire.host, &wire.trunk);
    let before = Residue::of(host, trunk).unwrap();
    attach(&wire, &MANAGED).kill().unwrap();
    assert!(!strips(&wire));
    detach(host, trunk).unwrap();
    before.wait_until_as_before(host, trunk).unwrap();

    attach(&wire, &MANAGED).kill().unwrap();
    // Only vlanfast has turned it off: without permission to do so, XDP sees no tags.
    let ended = vlanfast(
        host,
        &["attach", trunk, "--metrics", "off", "--ingress", "xdp"],
    )
    .unwrap();
    assert_eq!(ended.code, Some(4), "{ended:?}");
    assert!(ended.stderr.contains("--manage-offloads"), "{ended:?}");
    let attached = attach(&wire, &MANAGED);
    assert!(managed(&attached) && !strips(&wire));
    attached.kill().unwrap();
    let attached = attach(&wire, &["--ingress", "tc"]);
    assert!(!managed(&attached) && strips(&wire));
    attached.stop().unwrap();
    before.wait_until_as_before(host, trunk).unwrap();

    // The trunk is renamed, and later removed.
    attach(&wire, &MANAGED).kill().unwrap();
    let rename = |from: &str, to: &str| {
        let line = format!("ip link set {from} down && ip link set {from} name {to} up");
        host.run(&line).unwrap();
    };
    rename(trunk, "elsewhere");
    detach(host, "elsewhere").unwrap();
    rename("elsewhere", trunk);
    before.wait_until_as_before(host, trunk).unwrap();
    attach(&wire, &MANAGED).kill().unwrap();
    host.run(&format!("ip link del {trunk}")).unwrap();
    detach(host, trunk).unwrap();
    assert!(!is_pinned(trunk));
}

#[test]
fn killed_after_any_step_it_leaves_an_offload_that_detach_restores() {
    require!("killed", nix::unistd::geteuid().is_root(), "needs root");
    let wire = wire();
    let (host, trunk) = (&wire.host, &wire.trunk);
    let before = Residue::of(host, trunk).unwrap();
    let mut steps = vec![];
    for step in (1..).step_by(if in_the_lab() { 3 } else { 1 }) {
        let mut command = host.command(&binary());
        command
            .args(["attach", trunk, "--metrics", "off"])
            .args(MANAGED);
        let killed = killed_after(&mut command, step).unwrap();
        if is_pinned(trunk) {
            detach(host, trunk).unwrap();
        }
        if let Err(error) = before.wait_until_as_before(host, trunk) {
            panic!("killed after {killed:?}, step {step}: {error:#}");
        }
        match killed {
            Some(name) => steps.push(name),
            None => break,
        }
    }
    assert!(
        in_the_lab() || steps.contains(&"ETHTOOL_SFLAGS"),
        "{steps:?}"
    );
}

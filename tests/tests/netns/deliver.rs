//! `--deliver redirect`, with macvlans on the trunk itself; `trunk` of level `vm` covers a VLAN.

use std::{thread, time::Duration};

use vlanfast_tests::{fixtures::local_devices::LocalDevices, net::topology::Wire, require};

#[test]
fn unicast_for_a_device_next_to_the_trunk_is_redirected() {
    require!("deliver", nix::unistd::geteuid().is_root(), "needs root");
    let wire = Wire::veth().unwrap();
    let neighbours = LocalDevices::new(&wire, 0).unwrap();
    let attached = neighbours.attach(&[]).unwrap();
    neighbours.talk(&attached, false).unwrap();
    neighbours.is_shown("vm0", "kernel", None).unwrap();
    attached.stop().unwrap();
    let attached = neighbours.attach(&["--deliver", "redirect"]).unwrap();
    assert_eq!(attached.status().unwrap()["policy"]["deliver"], "redirect");
    neighbours.talk(&attached, true).unwrap();
    neighbours.elsewhere_nothing_changes(&attached).unwrap();
    neighbours.reaches_the_tap(&attached).unwrap();
    attached.stop().unwrap();
}

#[test]
fn where_redirect_is_impossible_the_kernel_delivers_and_the_reason_is_shown() {
    require!("deliver", nix::unistd::geteuid().is_root(), "needs root");
    let wire = Wire::veth().unwrap().keeping_tags().unwrap();
    let neighbours = LocalDevices::new(&wire, 0).unwrap();
    for ingress in ["xdp", "xdp-generic"] {
        let arguments = ["--deliver", "redirect", "--ingress", ingress];
        let attached = neighbours.attach(&arguments).unwrap();
        let warning = "--deliver redirect has no effect because ingress is read by XDP";
        assert!(attached.said.contains(warning), "{}", attached.said);
        neighbours.talk(&attached, false).unwrap();
        let why = Some("ingress is read by XDP");
        neighbours.is_shown("vm0", "kernel", why).unwrap();
        attached.stop().unwrap();
    }
    let attached = neighbours
        .attach(&["--deliver", "redirect", "--dry-run"])
        .unwrap();
    neighbours.ping("10.9.1.2", 200).unwrap();
    assert!(neighbours.delivered(&attached).unwrap() >= 200);
    neighbours
        .is_shown("vm0", "kernel", Some("dry run"))
        .unwrap();
    let received = Wire::statistic(&wire.host, "vm0", "rx_packets").unwrap();
    assert!(received >= 200, "{received}");
    attached.stop().unwrap();
}

#[test]
fn without_a_heartbeat_the_kernel_delivers_again() {
    require!("deliver", nix::unistd::geteuid().is_root(), "needs root");
    let wire = Wire::veth().unwrap();
    let neighbours = LocalDevices::new(&wire, 0).unwrap();
    let received = || Wire::statistic(&wire.host, "vm0", "rx_packets").unwrap();
    let attached = neighbours.attach(&["--deliver", "redirect"]).unwrap();
    let before = received();
    thread::scope(|scope| {
        // The wait is at least 4 s.
        let talking = scope.spawn(|| neighbours.ping("10.9.1.2", 1000));
        thread::sleep(Duration::from_secs(1));
        assert!(received() - before < 20);
        attached.kill().unwrap();
        talking.join().unwrap().unwrap();
    });
    assert!(received() - before > 20);
    let why = Some("no heartbeat");
    neighbours.is_shown("vm0", "kernel", why).unwrap();
    neighbours
        .attach(&["--deliver", "redirect"])
        .unwrap()
        .stop()
        .unwrap();
}

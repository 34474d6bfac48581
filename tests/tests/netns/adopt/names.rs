//! A trunk that has another name than when it was attached, and a name that has another device.

use vlanfast_tests::{
    program::is_pinned,
    require,
    residue::Residue,
    topology::{Netns, Wire, unique},
};

use super::{at_ingress, attach, detach, holder, tc};

fn rename(host: &Netns, old: &str, new: &str) {
    host.run(&format!(
        "ip link set {old} down && ip link set {old} name {new} && ip link set {new} up"
    ))
    .unwrap();
}

#[test]
fn a_renamed_trunk_is_cleared_up_by_either_name() {
    require!("renamed", nix::unistd::geteuid().is_root(), "needs root");
    let wire = Wire::veth().unwrap();
    let (host, first) = (&wire.host, wire.trunk.as_str());
    let before = Residue::of(host, first).unwrap();
    for by_old in [true, false] {
        let second = unique();
        attach(&wire, &[]).kill().unwrap();
        rename(host, first, &second);
        detach(host, if by_old { first } else { &second });
        assert!(!is_pinned(first) && !is_pinned(&second));
        rename(host, &second, first);
        before.wait_until_as_before(host, first).unwrap();
    }
}

#[test]
fn a_renamed_trunk_is_taken_over() {
    require!("renamed", nix::unistd::geteuid().is_root(), "needs root");
    let mut wire = Wire::veth().unwrap();
    attach(&wire, &[]).kill().unwrap();
    let egress = holder(&wire, "egress");
    let old = std::mem::replace(&mut wire.trunk, unique());
    rename(&wire.host, &old, &wire.trunk);
    let attached = attach(&wire, &[]);
    assert!(!is_pinned(&old) && is_pinned(&wire.trunk));
    assert_eq!(holder(&wire, "egress"), egress, "replaced in place");
    let pid = &attached.status().unwrap()["pid"];
    assert_eq!(
        *pid,
        attached.pid().as_raw(),
        "the lock is found by the new name"
    );
    attached.stop().unwrap();
    assert!(!is_pinned(&wire.trunk) && at_ingress(&wire).is_empty());
}

#[test]
fn a_trunk_of_another_namespace_with_the_same_index_is_not_taken_for_a_renamed_one() {
    require!("namespaces", nix::unistd::geteuid().is_root(), "needs root");
    let (first, second) = (Wire::veth().unwrap(), Wire::veth().unwrap());
    let index = |wire: &Wire| {
        let line = format!("cat /sys/class/net/{}/ifindex", wire.trunk);
        let line = format!("mount -t sysfs sys /sys && {line}");
        wire.host
            .run(&format!("unshare --mount sh -c '{line}'"))
            .unwrap()
    };
    assert_eq!(index(&first), index(&second), "or the test shows nothing");
    let one = attach(&first, &[]);
    let two = attach(&second, &[]);
    detach(&second.host, &second.trunk);
    drop(two);
    assert!(is_pinned(&first.trunk) && !is_pinned(&second.trunk));
    detach(&second.host, &second.trunk);
    assert_eq!(at_ingress(&first), [tc()]);
    one.stop().unwrap();
}

#[test]
fn a_new_device_with_an_old_name_is_attached_anew() {
    require!("new device", nix::unistd::geteuid().is_root(), "needs root");
    let wire = Wire::veth().unwrap();
    let (host, trunk) = (&wire.host, &wire.trunk);
    attach(&wire, &[]).kill().unwrap();
    host.run(&format!(
        "ip link del {trunk} && ip link add {trunk} type veth peer name other && \
         ip link set {trunk} up && ip link set other up"
    ))
    .unwrap();
    let attached = attach(&wire, &[]);
    assert_eq!(at_ingress(&wire), [tc()]);
    attached.stop().unwrap();
    assert!(!is_pinned(trunk) && at_ingress(&wire).is_empty());
}

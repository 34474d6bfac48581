//! A trunk that was renamed after it was attached, and a name that has passed to another device.

use aya::{
    maps::MapInfo,
    programs::{SchedClassifier, TcAttachType},
};
use vlanfast_tests::{
    net::{
        namespace::{Netns, in_netns, unique},
        topology::Wire,
    },
    require,
    run::{
        pins::{is_pinned, pins},
        program::Attached,
        require::kernel_at_least,
        residue::Residue,
    },
};

use super::{at_ingress, attach, detach, holder, map, tc};

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

/// Creates two trunks of one host that swapped their names after they were attached and killed.
fn swapped() -> (Wire, Wire) {
    let (mut one, mut two) = (Wire::veth().unwrap(), Wire::veth().unwrap());
    let host = &one.host;
    two.host
        .run(&format!("ip link set {} netns {}", two.trunk, host.name))
        .unwrap();
    host.run(&format!("ip link set {} up", two.trunk)).unwrap();
    for trunk in [&one.trunk, &two.trunk] {
        let attached = Attached::start(host, trunk, &["--metrics", "off"]);
        attached.unwrap().kill().unwrap();
    }
    let meanwhile = unique();
    rename(host, &one.trunk, &meanwhile);
    rename(host, &two.trunk, &one.trunk);
    rename(host, &meanwhile, &two.trunk);
    std::mem::swap(&mut one.trunk, &mut two.trunk);
    (one, two)
}

/// Counts our programs at the ingress of a device.
fn programs(host: &Netns, trunk: &str) -> usize {
    let wire = (host.path(), trunk.to_owned());
    let links = in_netns(&wire.0, move || match kernel_at_least(6, 6) {
        true => Ok(SchedClassifier::query_tcx(&wire.1, TcAttachType::Ingress)?
            .1
            .len()),
        false => Ok(0),
    });
    let filters = format!("tc filter show dev {trunk} ingress | grep -c vlanfast_rx || true");
    let filters: usize = host.run(&filters).unwrap().trim().parse().unwrap();
    links.unwrap() + filters
}

#[test]
fn trunks_that_swapped_their_names_are_each_cleared_up_by_the_name_of_today() {
    require!("swapped", nix::unistd::geteuid().is_root(), "needs root");
    let (one, two) = swapped();
    let host = &one.host;
    assert_eq!(
        (programs(host, &one.trunk), programs(host, &two.trunk)),
        (1, 1)
    );
    detach(host, &one.trunk);
    assert_eq!(
        (programs(host, &one.trunk), programs(host, &two.trunk)),
        (0, 1)
    );
    // The pins that last had its name belong to the other trunk.
    detach(host, &one.trunk);
    assert_eq!(programs(host, &two.trunk), 1);
    detach(host, &two.trunk);
    assert_eq!(programs(host, &two.trunk), 0);
    assert!(!is_pinned(&one.trunk) && !is_pinned(&two.trunk));
}

#[test]
fn trunks_that_swapped_their_names_are_taken_over() {
    require!("swapped", nix::unistd::geteuid().is_root(), "needs root");
    let (one, two) = swapped();
    let host = &one.host;
    // The trunks are attached under their former names.
    let counters = [&two, &one].map(|wire| map(wire, "COUNTERS").id());
    let attach = |trunk: &str| Attached::start(host, trunk, &["--metrics", "off"]).unwrap();
    let both = [attach(&one.trunk), attach(&two.trunk)];
    let now = [&one, &two].map(|wire| map(wire, "COUNTERS").id());
    assert_eq!(now, counters, "each goes on counting");
    for (attached, wire) in both.iter().zip([&one, &two]) {
        let status = attached.status().unwrap();
        assert_eq!(status["trunk"], *wire.trunk);
        assert_eq!(status["pid"], attached.pid().as_raw());
        assert_eq!(programs(host, &wire.trunk), 1);
    }
    for attached in both {
        attached.stop().unwrap();
    }
    assert_eq!(
        (programs(host, &one.trunk), programs(host, &two.trunk)),
        (0, 0)
    );
    assert!(!is_pinned(&one.trunk) && !is_pinned(&two.trunk));
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
fn a_new_device_with_the_old_name_of_a_renamed_trunk_takes_nothing_from_it() {
    require!("heir", nix::unistd::geteuid().is_root(), "needs root");
    let mut wire = Wire::veth().unwrap();
    attach(&wire, &[]).kill().unwrap();
    let counters = map(&wire, "COUNTERS").id();
    let directory = pins(&wire.trunk);
    let old = std::mem::replace(&mut wire.trunk, unique());
    let host = &wire.host;
    rename(host, &old, &wire.trunk);
    host.run(&format!(
        "ip link add {old} type veth peer name other && ip link set {old} up && ip link set other up"
    ))
    .unwrap();
    let heir = Attached::start(host, &old, &["--metrics", "off"]).unwrap();
    assert_eq!((programs(host, &old), programs(host, &wire.trunk)), (1, 1));
    let kept = MapInfo::from_pin(directory.join("COUNTERS")).unwrap();
    assert_eq!(kept.id(), counters);
    heir.stop().unwrap();
    assert_eq!(pins(&old), directory, "the heir's are gone");
    assert_eq!(programs(host, &wire.trunk), 1);
    // An attachment to the trunk by its new name adopts them.
    let again = attach(&wire, &[]);
    assert_eq!(map(&wire, "COUNTERS").id(), counters);
    assert!(!is_pinned(&old) && !directory.exists());
    again.kill().unwrap();
    detach(host, &wire.trunk);
    assert_eq!(programs(host, &wire.trunk), 0);
    assert!(!is_pinned(&wire.trunk));
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

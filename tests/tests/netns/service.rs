//! The systemd unit's claim: these capabilities suffice, and no more are held.

use std::{fs, os::unix::fs::PermissionsExt};

use vlanfast_tests::{
    program::{Attached, binary},
    require,
    sync::eventually,
    topology::{Netns, Wire},
};

const UNIT: &str = include_str!("../../../deploy/systemd/vlanfast@.service");

/// The unit's bounding set as setpriv(1) has it: `-all,+net_admin,+bpf`.
fn bounding_set() -> String {
    let line = UNIT
        .lines()
        .find_map(|line| line.strip_prefix("CapabilityBoundingSet="))
        .expect("the unit has a bounding set");
    line.split_whitespace()
        .fold("-all".to_owned(), |set, capability| {
            let name = capability.strip_prefix("CAP_").expect("a capability");
            format!("{set},+{}", name.to_lowercase())
        })
}

#[test]
fn the_units_capabilities_suffice() {
    require!("unit", nix::unistd::geteuid().is_root(), "needs root");
    let wire = Wire::veth().unwrap();
    let script = format!("/tmp/{}.sh", wire.trunk);
    let line = format!(
        "#!/bin/sh\nexec setpriv --bounding-set={} --no-new-privs {} \"$@\"\n",
        bounding_set(),
        binary()
    );
    fs::write(&script, line).unwrap();
    fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
    let arguments = ["--docker", "off", "--metrics", "off", "--on-exit", "keep"];
    // Twice: attach, then take over.
    for _ in 0..2 {
        let attached =
            Attached::start_by(script.clone(), &wire.host, &wire.trunk, &arguments).unwrap();
        let container = Netns::new().unwrap();
        wire.host
            .run(&format!(
                "ip link add link {} name mv0 netns {} type macvlan mode bridge",
                wire.trunk, container.name
            ))
            .unwrap();
        eventually("a macvlan in another namespace", &attached, |endpoints| {
            endpoints.len() == 1
        });
        drop(container);
        eventually("none", &attached, |endpoints| endpoints.is_empty());
        attached.stop().unwrap();
    }
    vlanfast_tests::program::detach(&wire.host, &wire.trunk).unwrap();
    fs::remove_file(&script).unwrap();
}

//! The capabilities of the systemd unit suffice, and the process holds no others.

use std::{fs, os::unix::fs::PermissionsExt};

use aya::programs::XdpMode;
use serde_json::json;
use vlanfast::maps::load;
use vlanfast_common::Policy;
use vlanfast_tests::{
    net::{
        namespace::{Netns, in_netns},
        topology::Wire,
    },
    require,
    run::{
        observe::eventually,
        pins::is_pinned,
        program::{Attached, binary, end},
        require::kernel_at_least,
    },
};

const UNIT: &str = include_str!("../../../deploy/systemd/vlanfast@.service");

/// Returns the unit's bounding set in the notation of setpriv(1): `-all,+net_admin,+bpf`.
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

/// Changes an address in a container that was read before: only a notification from its namespace reports it.
fn readdress(container: &Netns, attached: &Attached, address: &str) {
    container
        .run(&format!(
            "ip addr flush dev mv0 && ip addr add {address}/24 dev mv0"
        ))
        .unwrap();
    eventually(address, attached, |endpoints| {
        endpoints.len() == 1 && endpoints[0]["addresses"] == json!([address])
    });
}

/// These capabilities do not allow reading the program's details, but its id is shown, and that it is foreign.
fn a_foreign_program_is_named(wire: &Wire, script: &str) {
    let trunk = wire.trunk.clone();
    let _foreign = in_netns(&wire.host.path(), move || {
        let mut ebpf = load::load(&Policy::default(), 0)?;
        load::xdp(&mut ebpf)?.attach(&trunk, XdpMode::Driver)?;
        Ok(ebpf)
    })
    .unwrap();
    let refused = end(wire
        .host
        .command(script)
        .args(["attach", &wire.trunk, "--ingress", "xdp"]))
    .unwrap();
    assert_eq!(refused.code, Some(5), "{}", refused.stderr);
    assert!(refused.stderr.contains("XDP program "), "{refused:?}");
}

#[test]
fn the_units_capabilities_suffice() {
    require!("unit", nix::unistd::geteuid().is_root(), "needs root");
    let wire = Wire::veth().unwrap();
    wire.keep_tags().unwrap();
    let script = format!("/tmp/{}.sh", wire.trunk);
    let line = format!(
        "#!/bin/sh\nexec setpriv --bounding-set={} --no-new-privs {} \"$@\"\n",
        bounding_set(),
        binary()
    );
    fs::write(&script, line).unwrap();
    fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
    // The process attaches, is taken over, and is taken over at another hook.
    for ingress in ["tc", "tc", "xdp"] {
        let arguments = [
            "--ingress",
            ingress,
            "--docker",
            "off",
            "--metrics",
            "off",
            "--on-exit",
            "keep",
        ];
        // The test's commands run with the same rights.
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
        readdress(&container, &attached, "192.0.2.10");
        readdress(&container, &attached, "192.0.2.11");
        let tc = if kernel_at_least(6, 6) {
            "tcx"
        } else {
            "clsact"
        };
        let read_by = if ingress == "tc" { tc } else { "xdp-native" };
        assert_eq!(attached.kind("ingress").unwrap(), read_by);
        assert_eq!(attached.kind("egress").unwrap(), tc);
        attached.counters().unwrap();
        drop(container);
        eventually("none", &attached, |endpoints| endpoints.is_empty());
        attached.stop().unwrap();
    }
    let detach = end(wire.host.command(&script).args(["detach", &wire.trunk])).unwrap();
    assert_eq!(detach.code, Some(0), "{}", detach.stderr);
    assert!(!is_pinned(&wire.trunk));
    a_foreign_program_is_named(&wire, &script);
    fs::remove_file(&script).unwrap();
}

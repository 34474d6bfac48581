//! The maps follow the kernel: it does not matter how a macvlan is created, changed and removed. These tests use the
//! trunk itself (VLAN 0) and need no 8021q; `sync.rs` of level `vm` covers the rest.

use std::{
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::{Signal, kill};
use serde_json::Value;
use vlanfast_tests::{
    fixtures::macvlans::{attach, container, placed},
    net::{
        namespace::{Netns, unique},
        topology::Wire,
    },
    require,
    run::{
        observe::{endpoint, eventually},
        program::vlanfast,
    },
};

fn mac(netns: &Netns, device: &str) -> String {
    let text = netns.run(&format!("cat /sys/class/net/{device}/address"));
    // sysfs shows the namespace of the process that mounted it.
    let text =
        text.or_else(|_| netns.run(&format!("ip -br link show {device} | awk '{{print $3}}'")));
    text.unwrap().trim().to_owned()
}

#[test]
fn a_macvlan_is_seen_whatever_way_it_comes() {
    require!("ways", nix::unistd::geteuid().is_root(), "needs root");
    let wire = Wire::veth().unwrap();
    let (host, trunk) = (&wire.host, &wire.trunk);
    // One macvlan exists before vlanfast attaches.
    let _before = container(&wire, "before", "192.0.2.10");
    let attached = attach(&wire, &[]);
    let _moved = container(&wire, "moved", "192.0.2.11");
    let _placed = placed(&wire, "placed", "192.0.2.12");
    // One macvlan moves through a namespace to another, which has no id in ours.
    let (outer, inner) = (Netns::new().unwrap(), Netns::new().unwrap());
    host.run(&format!(
        "ip link add link {trunk} name nested type macvlan mode vepa && ip link set nested netns {}",
        outer.name
    ))
    .unwrap();
    outer
        .run(&format!("ip link set nested netns {}", inner.name))
        .unwrap();
    inner
        .run("ip addr add 192.0.2.13/24 dev nested && ip link set nested up")
        .unwrap();
    // This is a macvtap, as a virtual machine uses it.
    host.run(&format!(
        "ip link add link {trunk} name vm0 type macvtap mode bridge && ip link set vm0 up"
    ))
    .unwrap();
    eventually("all five", &attached, |endpoints| {
        let mode = |name, address, mode: &str| {
            endpoint(endpoints, name).is_some_and(|row| {
                row["mode"] == mode
                    && row["vlan"] == 0
                    && row["addresses"][0] == address
                    && row["nsid"].is_number()
            })
        };
        endpoints.len() == 5
            && mode("before", "192.0.2.10", "bridge")
            && mode("moved", "192.0.2.11", "bridge")
            && mode("placed", "192.0.2.12", "private")
            && mode("nested", "192.0.2.13", "vepa")
            && endpoint(endpoints, "vm0")
                .is_some_and(|row| row["kind"] == "macvtap" && row["nsid"].is_null())
    });
    drop(inner);
    eventually(
        "the nested one gone with its namespace",
        &attached,
        |endpoints| endpoints.len() == 4 && endpoint(endpoints, "nested").is_none(),
    );
    attached.stop().unwrap();
}

#[test]
fn changes_inside_a_container_are_followed() {
    require!("inside", nix::unistd::geteuid().is_root(), "needs root");
    let wire = Wire::veth().unwrap();
    let attached = attach(&wire, &[]);
    let inside = container(&wire, "mv0", "192.0.2.10");
    for conf in ["all", "default", "mv0"] {
        inside
            .run(&format!(
                "echo 0 >/proc/sys/net/ipv6/conf/{conf}/disable_ipv6"
            ))
            .unwrap();
    }
    inside
        .run("ip addr add 2001:db8::10/64 dev mv0 nodad && ip addr add 198.51.100.7/24 dev mv0")
        .unwrap();
    let has = |row: &Value, wanted: &str| {
        row["addresses"]
            .as_array()
            .unwrap()
            .iter()
            .any(|one| one == wanted)
    };
    eventually(
        "secondary addresses of both kinds",
        &attached,
        |endpoints| {
            endpoint(endpoints, "mv0").is_some_and(|row| {
                ["192.0.2.10", "198.51.100.7", "2001:db8::10"]
                    .iter()
                    .all(|wanted| has(row, wanted))
            })
        },
    );
    inside.run("ip addr del 198.51.100.7/24 dev mv0").unwrap();
    inside
        .run("ip link set mv0 address 02:00:00:00:05:05")
        .unwrap();
    eventually("another MAC and an address less", &attached, |endpoints| {
        endpoints.len() == 1
            && endpoint(endpoints, "mv0").is_some_and(|row| {
                row["mac"] == "02:00:00:00:05:05"
                    && !has(row, "198.51.100.7")
                    && has(row, "192.0.2.10")
            })
    });
    inside
        .run("ip link set mv0 down && ip link set mv0 name eth9 && ip link set eth9 up")
        .unwrap();
    eventually("another name", &attached, |endpoints| {
        endpoint(endpoints, "eth9").is_some()
    });
    inside.run("ip link del eth9").unwrap();
    eventually("none", &attached, <[Value]>::is_empty);
    attached.stop().unwrap();
}

#[test]
fn a_mac_or_address_that_two_have_is_shown_as_a_conflict() {
    require!("conflict", nix::unistd::geteuid().is_root(), "needs root");
    let wire = Wire::veth().unwrap();
    let attached = attach(&wire, &[]);
    let (one, two) = (
        container(&wire, "one", "192.0.2.10"),
        container(&wire, "two", "192.0.2.10"),
    );
    eventually("an address in conflict", &attached, |endpoints| {
        endpoints.len() == 2 && endpoints.iter().any(|row| row["conflict"] == true)
    });
    two.run("ip addr flush dev two && ip addr add 192.0.2.11/24 dev two")
        .unwrap();
    eventually("peace", &attached, |endpoints| {
        endpoints.len() == 2 && endpoints.iter().all(|row| row["conflict"] == false)
    });
    // Two macvlans cannot have one MAC, but the trunk may take the MAC of a macvlan.
    wire.host
        .run(&format!(
            "ip link set {} address {}",
            wire.trunk,
            mac(&one, "one")
        ))
        .unwrap();
    eventually("a MAC in conflict", &attached, |endpoints| {
        endpoints.len() == 2
            && endpoint(endpoints, "one").is_some_and(|row| row["conflict"] == true)
            && endpoint(endpoints, "two").is_some_and(|row| row["conflict"] == false)
    });
    attached.stop().unwrap();
}

#[test]
fn the_trunk_may_go_down_come_up_and_change_its_name() {
    require!("trunk", nix::unistd::geteuid().is_root(), "needs root");
    let mut wire = Wire::veth().unwrap();
    let mut attached = attach(&wire, &[]);
    let _container = container(&wire, "mv0", "192.0.2.10");
    eventually("the endpoint", &attached, |endpoints| endpoints.len() == 1);
    let (host, trunk) = (&wire.host, &wire.trunk);
    host.run(&format!("ip link set {trunk} down")).unwrap();
    thread::sleep(Duration::from_millis(300));
    let renamed = unique();
    host.run(&format!(
        "ip link set {trunk} name {renamed} && ip link set {renamed} up"
    ))
    .unwrap();
    attached.trunk = renamed.clone();
    let start = Instant::now();
    while attached.status().is_err() {
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "status knows no {renamed}"
        );
        thread::sleep(Duration::from_millis(20));
    }
    wire.trunk = renamed.clone();
    let _later = container(&wire, "mv1", "192.0.2.11");
    eventually(
        "both endpoints under the new name",
        &attached,
        |endpoints| {
            endpoints.len() == 2 && endpoints.iter().all(|row| row["trunk"] == renamed.as_str())
        },
    );
    attached.stop().unwrap();
}

#[test]
fn a_trunk_that_is_gone_ends_the_process_and_leaves_no_pin() {
    require!("gone", nix::unistd::geteuid().is_root(), "needs root");
    let wire = Wire::veth().unwrap();
    let attached = attach(&wire, &[]);
    wire.host
        .run(&format!("ip link del {}", wire.trunk))
        .unwrap();
    let ended = attached.end().unwrap();
    assert_eq!(ended.code, Some(4), "{}", ended.stderr);
    assert!(ended.stderr.contains("is gone"), "{}", ended.stderr);
    assert!(!vlanfast_tests::run::pins::is_pinned(&wire.trunk));
}

/// The reader of the output is gone, and Ctrl-C still detaches everything.
#[test]
fn a_closed_pipe_does_not_prevent_detaching() {
    require!("pipe", nix::unistd::geteuid().is_root(), "needs root");
    let wire = Wire::veth().unwrap();
    let (trunk, binary) = (&wire.trunk, vlanfast_tests::run::program::binary());
    let line = format!("{binary} attach {trunk} --docker off --metrics off | true");
    let mut shell = wire.host.command("sh").args(["-c", &line]).spawn().unwrap();
    let start = Instant::now();
    while vlanfast(&wire.host, &["status", trunk]).unwrap().code != Some(0) {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "it never attached"
        );
        thread::sleep(Duration::from_millis(50));
    }
    let status = vlanfast(&wire.host, &["status", trunk, "--json"]).unwrap();
    let status: Value = serde_json::from_str(&status.stdout).unwrap();
    let pid = status["pid"].as_i64().expect("a process is attached") as i32;
    kill(nix::unistd::Pid::from_raw(pid), Signal::SIGINT).unwrap();
    shell.wait().unwrap();
    let start = Instant::now();
    while vlanfast_tests::run::pins::is_pinned(trunk) {
        assert!(start.elapsed() < Duration::from_secs(10), "pins are left");
        thread::sleep(Duration::from_millis(50));
    }
}

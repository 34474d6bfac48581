//! A trunk is identified by its device and namespace, and not by the name that was typed.

mod gone;
mod shells;

use std::{
    fs,
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use aya::maps::MapInfo;
use serde_json::Value;
use vlanfast_tests::{
    net::{
        namespace::Netns,
        topology::{WIRE, Wire},
    },
    require,
    run::{
        pins::{PINS, is_pinned, pins},
        program::{Attached, binary, detach, vlanfast},
        require::kernel_at_least,
        residue::Residue,
    },
};

use super::strangers::{aside, assert_refused};

/// This is longer than a slow machine takes to attach.
const PATIENCE: Duration = Duration::from_secs(60);

/// Two alternative names: one could be a primary name, and the other is too long for that.
const SHORT: &str = "alt0";
const LONG: &str = "an-alternative-name-that-is-longer-than-any-other-0";

fn json(host: &Netns, arguments: &[&str]) -> Value {
    let ended = vlanfast(host, arguments).unwrap();
    assert_eq!(ended.code, Some(0), "{arguments:?}: {ended:?}");
    serde_json::from_str(&ended.stdout).unwrap()
}

/// Waits until `status` shows a process.
fn attached(host: &Netns, trunk: &str) -> Value {
    let start = Instant::now();
    loop {
        let ended = vlanfast(host, &["status", trunk, "--json"]).unwrap();
        let status: Value = serde_json::from_str(&ended.stdout).unwrap_or_default();
        if status["heartbeat"] == "alive" && !status["pid"].is_null() {
            return status;
        }
        assert!(start.elapsed() < PATIENCE, "{ended:?}");
        thread::sleep(Duration::from_millis(50));
    }
}

fn start(host: &Netns, arguments: &[&str]) -> Child {
    let mut command = host.command(&binary());
    command
        .args(arguments)
        .args(["--docker", "off", "--metrics", "off"]);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command.spawn().unwrap()
}

/// Counts the directories of pins whose trunk has a name.
fn named(trunk: &str) -> usize {
    let end = format!(":{trunk}");
    let entries = fs::read_dir(PINS).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().to_string_lossy().ends_with(&end))
        .count()
}

#[test]
fn every_name_of_a_device_means_the_same_trunk() {
    require!("names", nix::unistd::geteuid().is_root(), "needs root");
    let wire = Wire::veth().unwrap();
    let (host, trunk) = (&wire.host, wire.trunk.as_str());
    let before = Residue::of(host, trunk).unwrap();
    for name in [SHORT, LONG] {
        host.run(&format!("ip link property add dev {trunk} altname {name}"))
            .unwrap();
    }
    for by in [SHORT, LONG, trunk] {
        let mut child = start(host, &["attach", by]);
        let status = attached(host, by);
        assert_eq!(status["trunk"], trunk, "by {by}");
        for name in [SHORT, LONG, trunk] {
            assert_eq!(json(host, &["status", name, "--json"])["trunk"], trunk);
            let counters = json(host, &["counters", name, "--vlan", "7", "--json"]);
            assert_eq!(counters[0]["trunk"], trunk, "by {name}");
            for verb in ["endpoints", "flows"] {
                assert!(
                    json(host, &[verb, name, "--json"]).is_array(),
                    "{verb} {name}"
                );
            }
            let flushed = vlanfast(host, &["flows", "flush", name]).unwrap();
            assert!(
                flushed.stdout.starts_with(&format!("{trunk}: ")),
                "{flushed:?}"
            );
            let again = vlanfast(host, &["attach", name, "--metrics", "off"]).unwrap();
            assert_refused("attach", &again, 7, &[trunk, &status["pid"].to_string()]);
        }
        assert_eq!((named(trunk), named(by)), (1, usize::from(by == trunk)));
        let ended = vlanfast(host, &["detach", by]).unwrap();
        assert_eq!(ended.stdout, format!("{trunk}: detached\n"), "{ended:?}");
        assert!(child.wait().unwrap().success() && !is_pinned(trunk));
        before.wait_until_as_before(host, trunk).unwrap();
        let again = vlanfast(host, &["detach", by]).unwrap();
        assert!(
            again.stdout.contains(&format!("{trunk}: not attached")),
            "{again:?}"
        );
    }
}

#[test]
fn the_former_name_means_the_same_trunk() {
    require!("before", nix::unistd::geteuid().is_root(), "needs root");
    let wire = Wire::veth().unwrap();
    let (host, old) = (&wire.host, wire.trunk.as_str());
    let before = Residue::of(host, old).unwrap();
    Attached::start(host, old, &["--metrics", "off"])
        .unwrap()
        .kill()
        .unwrap();
    host.run(&format!(
        "ip link set {old} down && ip link set {old} name new0 up"
    ))
    .unwrap();
    for name in [old, "new0"] {
        assert_eq!(json(host, &["status", name, "--json"])["trunk"], "new0");
        let counters = json(host, &["counters", name, "--vlan", "7", "--json"]);
        assert_eq!(counters[0]["trunk"], "new0");
    }
    let all = vlanfast(host, &["status"]).unwrap();
    assert!(all.stdout.starts_with("new0: "), "{all:?}");
    // Now that another device has the name, the name means that device.
    host.run(&format!("ip link add {old} type veth peer name other"))
        .unwrap();
    let ended = vlanfast(host, &["status", old]).unwrap();
    assert_refused("status", &ended, 1, &["not attached", old]);
    let ended = vlanfast(host, &["detach", old]).unwrap();
    assert!(ended.stdout.contains("not attached"), "{ended:?}");
    assert_eq!(named(old), 1);
    host.run(&format!("ip link del {old}")).unwrap();
    detach(host, old).unwrap();
    host.run(&format!(
        "ip link set new0 down && ip link set new0 name {old} up"
    ))
    .unwrap();
    before.wait_until_as_before(host, old).unwrap();
}

/// Creates two namespaces whose trunks have the same name and index.
fn twins() -> (Wire, Wire) {
    let (one, mut two) = (Wire::veth().unwrap(), Wire::veth().unwrap());
    two.host
        .run(&format!(
            "ip link set {} down && ip link set {} name {} up",
            two.trunk, two.trunk, one.trunk
        ))
        .unwrap();
    two.trunk.clone_from(&one.trunk);
    for wire in [&one, &two] {
        wire.host
            .run(&format!("ip addr add 192.0.2.1/24 dev {}", wire.trunk))
            .unwrap();
        wire.router
            .run(&format!("ip addr add 192.0.2.2/24 dev {WIRE}"))
            .unwrap();
    }
    (one, two)
}

/// Sends frames through the trunk, and returns what was counted there.
fn counted(wire: &Wire) -> [u64; 2] {
    wire.router.run("ping -c 3 192.0.2.1").unwrap();
    let rows = json(
        &wire.host,
        &["counters", &wire.trunk, "--vlan", "0", "--json"],
    );
    ["rx", "tx"].map(|side| rows[0][side]["packets"]["unicast"].as_u64().unwrap())
}

#[test]
fn namespaces_have_trunks_of_their_own() {
    require!("namespaces", nix::unistd::geteuid().is_root(), "needs root");
    let (one, two) = twins();
    let trunk = one.trunk.as_str();
    let first = Attached::start(&one.host, trunk, &["--metrics", "off"]).unwrap();
    let second = Attached::start(&two.host, trunk, &["--metrics", "off"]).unwrap();
    assert_eq!(named(trunk), 2);
    let [status, other] = [&first, &second].map(|attached| attached.status().unwrap());
    assert_eq!(
        status["ifindex"], other["ifindex"],
        "or the test shows nothing"
    );
    for (attached, status) in [(&first, status), (&second, other)] {
        assert_eq!(status["pid"], attached.pid().as_raw());
    }
    let before = counted(&one);
    let there = counted(&two);
    assert!(
        before.iter().chain(&there).all(|packets| *packets >= 3),
        "{before:?} {there:?}"
    );
    for wire in [&one, &two] {
        let all = json(&wire.host, &["status", "--json"]);
        assert!(all.is_object(), "its own trunk alone: {all}");
        let rows = json(&wire.host, &["counters", "--json"]);
        assert!(
            rows.as_array()
                .unwrap()
                .iter()
                .all(|row| row["trunk"] == *trunk)
        );
    }

    // A third namespace without such a device, or without pins, is independent of the two.
    let third = Netns::new().unwrap();
    let ended = vlanfast(&third, &["detach", trunk]).unwrap();
    assert_refused("detach", &ended, 4, &["no such device"]);
    third
        .run(&format!("ip link add {trunk} type veth peer name other"))
        .unwrap();
    let ended = vlanfast(&third, &["detach", trunk]).unwrap();
    assert!(ended.stdout.contains("not attached"), "{ended:?}");

    detach(&two.host, trunk).unwrap();
    assert_eq!(second.end().unwrap().code, Some(0), "in order");
    assert_eq!(named(trunk), 1);
    let status = first.status().unwrap();
    assert_eq!(status["pid"], first.pid().as_raw());
    assert_eq!(status["hooks"].as_array().unwrap().len(), 2);
    assert!(
        counted(&one)
            .iter()
            .zip(before)
            .all(|(now, before)| *now >= before + 3)
    );
    let ended = vlanfast(&two.host, &["status", trunk]).unwrap();
    assert_refused("status", &ended, 1, &["not attached"]);
    first.stop().unwrap();
    assert_eq!(named(trunk), 0);
}

#[test]
fn pins_of_a_deleted_namespace_can_be_removed() {
    require!("gone", nix::unistd::geteuid().is_root(), "needs root");
    let (wire, here) = (Wire::veth().unwrap(), Netns::new().unwrap());
    let trunk = wire.trunk.clone();
    Attached::start(&wire.host, &trunk, &["--metrics", "off"])
        .unwrap()
        .kill()
        .unwrap();
    // No process is attached, but the programs and pins are still there.
    let ended = vlanfast(&here, &["detach", &trunk]).unwrap();
    assert_refused("detach", &ended, 4, &["no such device"]);
    assert!(is_pinned(&trunk));
    drop(wire);
    if !kernel_at_least(6, 6) {
        // A filter has no link that would show that its device is gone, so pins that may be another trunk's stay.
        let ended = vlanfast(&here, &["detach", &trunk]).unwrap();
        assert_refused("detach", &ended, 4, &["no such device"]);
        fs::remove_dir_all(pins(&trunk)).unwrap();
        return;
    }
    // The kernel dismantles a namespace with a delay.
    let start = Instant::now();
    while vlanfast(&here, &["detach", &trunk]).unwrap().code != Some(0) {
        assert!(start.elapsed() < PATIENCE, "it stays");
        thread::sleep(Duration::from_millis(100));
    }
    assert!(!is_pinned(&trunk));
}

/// Moves the pins to where an earlier version left them.
fn by_name(trunk: &str) {
    fs::rename(pins(trunk), format!("{PINS}/{trunk}")).unwrap();
}

fn counters(directory: &str) -> u32 {
    MapInfo::from_pin(format!("{directory}/COUNTERS"))
        .unwrap()
        .id()
}

#[test]
fn pins_of_an_earlier_version_are_found_and_adopted() {
    require!("earlier", nix::unistd::geteuid().is_root(), "needs root");
    let (one, two) = twins();
    let trunk = one.trunk.as_str();
    let before = Residue::of(&one.host, trunk).unwrap();
    let attach = || Attached::start(&one.host, trunk, &["--metrics", "off"]).unwrap();

    // With a running process, the pins belong to that process's namespace only.
    let running = attach();
    by_name(trunk);
    assert_eq!(running.status().unwrap()["pid"], running.pid().as_raw());
    let ended = vlanfast(&two.host, &["detach", trunk]).unwrap();
    assert!(ended.stdout.contains("not attached"), "{ended:?}");
    let other = Attached::start(&two.host, trunk, &["--metrics", "off"]).unwrap();
    other.stop().unwrap();
    assert_eq!(
        running.status().unwrap()["hooks"].as_array().unwrap().len(),
        2
    );
    let again = vlanfast(&one.host, &["attach", trunk, "--metrics", "off"]).unwrap();
    assert_refused("attach", &again, 7, &[&running.pid().to_string()]);
    running.kill().unwrap();

    // Without a running process, the pins are adopted, and the counters go on.
    let id = counters(&format!("{PINS}/{trunk}"));
    let shown = vlanfast(&one.host, &["status"]).unwrap();
    assert!(shown.stdout.starts_with(&format!("{trunk}: ")), "{shown:?}");
    let adopted = attach();
    assert_eq!(counters(pins(trunk).to_str().unwrap()), id);
    assert!(!fs::exists(format!("{PINS}/{trunk}")).unwrap());
    adopted.kill().unwrap();

    by_name(trunk);
    detach(&one.host, trunk).unwrap();
    assert!(!fs::exists(format!("{PINS}/{trunk}")).unwrap());
    before.wait_until_as_before(&one.host, trunk).unwrap();
}

#[test]
fn an_attachment_whose_pins_are_elsewhere_is_seen() {
    require!("elsewhere", nix::unistd::geteuid().is_root(), "needs root");
    let wire = Wire::veth().unwrap();
    wire.keep_tags().unwrap();
    let (host, trunk) = (&wire.host, wire.trunk.as_str());
    let before = Residue::of(host, trunk).unwrap();
    for (ingress, program) in [("tc", "vlanfast_rx"), ("xdp", "vlanfast_xdp")] {
        let arguments = ["--metrics", "off", "--ingress", ingress];
        let attached = aside(0o700, || {
            let attached = Attached::start(host, trunk, &arguments).unwrap();
            assert_eq!(named(trunk), 1);
            // The mount lives as long as the process does.
            attached
        });
        assert_eq!(named(trunk), 0);
        for ingress in ["tc", "xdp", "auto"] {
            let ended = vlanfast(host, &["attach", trunk, "--ingress", ingress]).unwrap();
            assert_refused("attach", &ended, 7, &[trunk, program, "vlanfast_tx"]);
        }
        attached.stop().unwrap();
        before.wait_until_as_before(host, trunk).unwrap();
    }
}

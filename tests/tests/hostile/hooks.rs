//! Hooks that third-party tools use too: they detach our programs, run ahead of them, or occupy the hook.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use vlanfast_tests::{
    net::{
        capture::Packets,
        packet::{TRUNK_MAC, frame, tag},
        topology::{WIRE, Wire},
    },
    require,
    run::{
        foreign_program::{BPF_F_AFTER, BPF_F_BEFORE, ForeignProgram, detach_link},
        pins::pins,
        program::{Attached, vlanfast},
        prometheus::{get_in, metric},
        require::kernel_at_least,
        residue::Residue,
    },
};

/// This is longer than a repair or a report takes under emulation.
const PATIENCE: Duration = Duration::from_secs(30);
const PORT: u16 = 9436;

fn attach(wire: &Wire, more: &[&str]) -> Attached {
    let arguments = [&["--docker", "off"], more].concat();
    Attached::start(&wire.host, &wire.trunk, &arguments).unwrap()
}

/// Waits until an attempt succeeds.
fn eventually<T>(what: &str, attempt: impl Fn() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match attempt() {
            Ok(found) => return found,
            Err(why) if start.elapsed() > PATIENCE => panic!("{what}: {why}"),
            Err(_) => thread::sleep(Duration::from_millis(50)),
        }
    }
}

fn becomes(what: &str, condition: impl Fn() -> bool) {
    eventually(what, || condition().then_some(()).ok_or_else(String::new));
}

/// Returns how many frames were counted as received on VLAN 10.
fn received(attached: &Attached) -> u64 {
    let packets = &attached.row(10).unwrap()["rx"]["packets"];
    packets["unicast"].as_u64().unwrap_or(0)
}

/// Sends ten frames from the wire, half of them IPv6, and returns how many are counted.
fn counted_of_ten(wire: &Wire, attached: &Attached) -> u64 {
    let before = received(attached);
    let socket = Packets::open(&wire.router.path(), WIRE, false).unwrap();
    for kind in [[0x08, 0x00], [0x86, 0xdd]] {
        let bytes = frame(TRUNK_MAC, &[&tag(0, 10)[..], &kind].concat(), 64);
        (0..5).for_each(|_| socket.send(&bytes).unwrap());
    }
    // A veth delivers a frame to its peer at once, but with two CPUs the peer may run a little later.
    let start = Instant::now();
    while received(attached) < before + 10 && start.elapsed() < Duration::from_secs(2) {
        thread::sleep(Duration::from_millis(20));
    }
    received(attached) - before
}

fn words(value: &Value) -> String {
    value["warnings"].to_string()
}

fn attached_hooks(attached: &Attached) -> usize {
    attached.status().unwrap()["hooks"]
        .as_array()
        .unwrap()
        .len()
}

/// Attaches a third-party program ahead of ours, by the means of the running kernel; it is removed with the result.
fn in_front(wire: &Wire, ingress: bool) -> Box<dyn std::any::Any> {
    let mut program = ForeignProgram::tc("in_front").unwrap();
    if kernel_at_least(6, 6) {
        let trunk = &wire.trunk;
        let attached = program.attach_tcx(&wire.host, trunk, ingress, BPF_F_BEFORE);
        attached.unwrap();
        return Box::new(program);
    }
    let pin = program.pinned().unwrap();
    let hook = if ingress { "ingress" } else { "egress" };
    let line = format!(
        "tc filter add dev {} {hook} pref 1 bpf da object-pinned {}",
        wire.trunk,
        pin.path().display()
    );
    wire.host.run(&line).unwrap();
    Box::new((program, pin))
}

/// Returns how `status` describes the program: a filter has no name, so its kind is shown.
fn shown() -> &'static str {
    match kernel_at_least(6, 6) {
        true => "tcx program 'in_front'",
        false => "bpf filter '",
    }
}

#[test]
fn a_program_in_front_of_ours_is_reported() {
    require!("front", nix::unistd::geteuid().is_root(), "needs root");
    let wire = Wire::veth().unwrap();
    let attached = attach(&wire, &[]);
    assert_eq!(counted_of_ten(&wire, &attached), 10);
    let status = attached.status().unwrap();
    assert_eq!(status["warnings"], serde_json::json!([]), "{status}");
    for hook in ["ingress", "egress"] {
        let program = in_front(&wire, hook == "ingress");
        // `status` asks the kernel and shows it at once; the daemon notices it within seconds.
        let status = attached.status().unwrap();
        assert!(words(&status).contains(shown()), "{status}");
        assert!(
            words(&status).contains("runs before our program"),
            "{status}"
        );
        let hooks = status["hooks"].as_array().unwrap();
        let entry = hooks.iter().find(|entry| entry["hook"] == hook).unwrap();
        assert_eq!(entry["preceded_by"].as_array().unwrap().len(), 1, "{entry}");
        let text = vlanfast(&wire.host, &["status", &wire.trunk])
            .unwrap()
            .stdout;
        assert!(
            text.contains("warning: ") && text.contains(shown()),
            "{text}"
        );
        let series = format!(
            "vlanfast_hook_preceded{{trunk=\"{}\",hook=\"{hook}\"}}",
            wire.trunk
        );
        becomes("the metric", || {
            metric(&wire.host, PORT, &series) == Some(1.0)
        });
        assert_eq!(get_in(&wire.host, PORT, "/live").unwrap().0, 200);
        if hook == "ingress" {
            assert_eq!(counted_of_ten(&wire, &attached), 0, "or it is not in front");
        }
        drop(program);
        if !kernel_at_least(6, 6) {
            let line = format!("tc filter del dev {} {hook} pref 1", wire.trunk);
            wire.host.run(&line).unwrap();
        }
        becomes("the metric", || {
            metric(&wire.host, PORT, &series) == Some(0.0)
        });
    }
    assert_eq!(counted_of_ten(&wire, &attached), 10);
    attached.stop().unwrap();
}

#[test]
fn a_program_behind_ours_is_not_reported() {
    require!("behind", nix::unistd::geteuid().is_root(), "needs root");
    let wire = Wire::veth().unwrap();
    let attached = attach(&wire, &[]);
    if kernel_at_least(6, 6) {
        let mut program = ForeignProgram::tc("behind").unwrap();
        let trunk = &wire.trunk;
        program
            .attach_tcx(&wire.host, trunk, true, BPF_F_AFTER)
            .unwrap();
        assert_eq!(
            attached.status().unwrap()["warnings"],
            serde_json::json!([])
        );
        assert_eq!(counted_of_ten(&wire, &attached), 10);
    }
    let (program, pref) = (ForeignProgram::tc("behind").unwrap(), 60_000);
    let pin = program.pinned().unwrap();
    let qdisc = format!("tc qdisc add dev {} clsact 2>/dev/null || true", wire.trunk);
    let filter = format!(
        "tc filter add dev {} ingress pref {pref} bpf da object-pinned {}",
        wire.trunk,
        pin.path().display()
    );
    wire.host.run(&format!("{qdisc}; {filter}")).unwrap();
    assert_eq!(
        attached.status().unwrap()["warnings"],
        serde_json::json!([])
    );
    assert_eq!(counted_of_ten(&wire, &attached), 10);
    let unfilter = format!("tc filter del dev {} ingress pref {pref}", wire.trunk);
    wire.host.run(&unfilter).unwrap();
    attached.stop().unwrap();
}

#[test]
fn an_xdp_program_that_came_later_is_in_front_of_tc() {
    require!(
        "xdp in front",
        nix::unistd::geteuid().is_root(),
        "needs root"
    );
    let wire = Wire::veth().unwrap();
    let attached = attach(&wire, &[]);
    let mut program = ForeignProgram::xdp("in_front").unwrap();
    program.attach_xdp(&wire.host, &wire.trunk).unwrap();
    let series = format!(
        "vlanfast_hook_preceded{{trunk=\"{}\",hook=\"ingress\"}}",
        wire.trunk
    );
    becomes("the metric", || {
        metric(&wire.host, PORT, &series) == Some(1.0)
    });
    let status = attached.status().unwrap();
    assert!(
        words(&status).contains("XDP program 'in_front'"),
        "{status}"
    );
    attached.stop().unwrap();
}

/// Detaches our hooks by the means of the running kernel.
fn taken_away(wire: &Wire, what: &str) {
    let trunk = &wire.trunk;
    match (what, kernel_at_least(6, 6)) {
        ("qdisc", false) => wire
            .host
            .run(&format!("tc qdisc del dev {trunk} clsact"))
            .map(drop),
        (hook, false) => wire
            .host
            .run(&format!("tc filter del dev {trunk} {hook}"))
            .map(drop),
        ("qdisc", true) => ["ingress", "egress"]
            .iter()
            .try_for_each(|hook| detach_link(&pins(trunk).join(format!("{hook}_link")))),
        (hook, true) => detach_link(&pins(trunk).join(format!("{hook}_link"))),
    }
    .unwrap();
}

#[test]
fn a_detached_hook_is_attached_again() {
    require!("repaired", nix::unistd::geteuid().is_root(), "needs root");
    let wire = Wire::veth().unwrap();
    let before = Residue::of(&wire.host, &wire.trunk).unwrap();
    for what in ["qdisc", "ingress", "egress"] {
        let attached = attach(&wire, &[]);
        taken_away(&wire, what);
        becomes(what, || attached_hooks(&attached) == 2);
        assert_eq!(counted_of_ten(&wire, &attached), 10, "{what}");
        let live = get_in(&wire.host, PORT, "/live").unwrap();
        assert_eq!(live.0, 200, "{what}");
        // The hook is detached a second time after a pause.
        taken_away(&wire, what);
        becomes(what, || attached_hooks(&attached) == 2);
        assert_eq!(counted_of_ten(&wire, &attached), 10, "{what}");
        attached.stop().unwrap();
        before
            .wait_until_as_before(&wire.host, &wire.trunk)
            .unwrap();
    }
}

#[test]
fn a_detached_xdp_link_is_attached_again() {
    require!(
        "repaired xdp",
        nix::unistd::geteuid().is_root(),
        "needs root"
    );
    let wire = Wire::veth().unwrap().keeping_tags().unwrap();
    let before = Residue::of(&wire.host, &wire.trunk).unwrap();
    for mode in ["xdp", "xdp-generic"] {
        let attached = attach(&wire, &["--ingress", mode]);
        let kind = attached.kind("ingress").unwrap();
        detach_link(&pins(&wire.trunk).join("ingress_link")).unwrap();
        becomes(mode, || {
            attached.kind("ingress").is_ok_and(|now| now == kind)
        });
        assert_eq!(counted_of_ten(&wire, &attached), 10);
        attached.stop().unwrap();
        before
            .wait_until_as_before(&wire.host, &wire.trunk)
            .unwrap();
    }
}

/// Keeps our program off a hook, until the result is dropped.
fn occupied(wire: &Wire) -> Option<ForeignProgram> {
    let trunk = &wire.trunk;
    if kernel_at_least(6, 6) {
        // Detaching and attaching must follow each other closely, or the daemon would have repaired the hook in
        // between.
        let mut other = ForeignProgram::xdp("occupant").unwrap();
        let start = Instant::now();
        loop {
            let _ = detach_link(&pins(trunk).join("ingress_link"));
            match other.attach_xdp(&wire.host, trunk) {
                Ok(()) => return Some(other),
                Err(error) => assert!(start.elapsed() < PATIENCE, "{error:#}"),
            }
        }
    }
    let line = format!("tc qdisc del dev {trunk} clsact && tc qdisc add dev {trunk} ingress");
    becomes("an ingress qdisc in the place of clsact", || {
        wire.host.run(&line).is_ok()
    });
    None
}

#[test]
fn an_occupied_hook_is_reported_and_retaken_once_it_is_free() {
    require!("occupied", nix::unistd::geteuid().is_root(), "needs root");
    let wire = Wire::veth().unwrap().keeping_tags().unwrap();
    let attached = match kernel_at_least(6, 6) {
        true => attach(&wire, &["--ingress", "xdp"]),
        false => attach(&wire, &[]),
    };
    let live = || get_in(&wire.host, PORT, "/live").unwrap();
    assert_eq!(live().0, 200);
    let occupant = occupied(&wire);
    becomes("not live", || live().0 == 503);
    assert!(live().1.contains("ingress"), "{:?}", live());
    let text = get_in(&wire.host, PORT, "/metrics").unwrap().1;
    let gone = text
        .lines()
        .filter(|line| line.starts_with("vlanfast_attached{") && line.ends_with(" 0"));
    assert!(gone.count() >= 1, "{text}");
    let status = attached.status().unwrap();
    assert!(
        status["missing"].to_string().contains("ingress"),
        "{status}"
    );
    assert!(words(&status).contains("took our program off"), "{status}");
    // Once the occupant is removed, our program is attached again without help.
    match occupant {
        Some(other) => drop(other),
        None => wire
            .host
            .run(&format!("tc qdisc del dev {} ingress", wire.trunk))
            .map(drop)
            .unwrap(),
    }
    becomes("live again", || {
        live().0 == 200 && attached_hooks(&attached) == 2
    });
    assert_eq!(counted_of_ten(&wire, &attached), 10);
    attached.stop().unwrap();
}

#[test]
fn a_foreign_ingress_qdisc_is_named_with_the_remedy() {
    require!("ingress", nix::unistd::geteuid().is_root(), "needs root");
    let wire = Wire::veth().unwrap();
    let (host, trunk) = (&wire.host, &wire.trunk);
    host.run(&format!("tc qdisc add dev {trunk} ingress"))
        .unwrap();
    let before = Residue::of(host, trunk).unwrap();
    if kernel_at_least(6, 6) {
        // With tcx, the foreign qdisc is no obstacle.
        let attached = attach(&wire, &[]);
        assert_eq!(counted_of_ten(&wire, &attached), 10);
        attached.stop().unwrap();
    } else {
        let ended = vlanfast(host, &["attach", trunk, "--metrics", "off"]).unwrap();
        assert_eq!(ended.code, Some(5), "{ended:?}");
        for word in ["ingress qdisc", trunk, "tc qdisc add dev", "clsact"] {
            assert!(ended.stderr.contains(word), "no '{word}' in {ended:?}");
        }
        assert_eq!(ended.stderr.trim_end().lines().count(), 1, "{ended:?}");
    }
    before.wait_until_as_before(host, trunk).unwrap();
    if !kernel_at_least(6, 6) {
        host.run(&format!(
            "tc qdisc del dev {trunk} ingress && tc qdisc add dev {trunk} clsact"
        ))
        .unwrap();
        let attached = attach(&wire, &[]);
        assert_eq!(counted_of_ten(&wire, &attached), 10);
        attached.stop().unwrap();
    }
}

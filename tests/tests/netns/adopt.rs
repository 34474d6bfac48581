//! Successive processes on one trunk: restarts, kills, upgrades, another hook, another name.

mod crash;
mod names;

use std::{
    thread,
    time::{Duration, Instant},
};

use aya::{
    maps::MapInfo,
    programs::{
        LinkOrder, ProgramInfo, SchedClassifier, TcAttachType,
        links::{FdLink, PinnedLink},
        tc::{NlOptions, TcAttachOptions},
    },
};
use nix::sys::signal::Signal;
use vlanfast_tests::{
    net::{
        capture::Packets,
        namespace::{Netns, in_netns},
        packet::{TRUNK_MAC, frame},
        tally::CounterKey,
        topology::{WIRE, Wire},
        traffic::{Traffic, rate},
    },
    require,
    run::{
        pins::{is_pinned, pins},
        program::{Attached, binary, next_binary, vlanfast},
        require::kernel_at_least,
        residue::Residue,
    },
};

use crate::life::{foreign, seen};

const HOOKS: [&str; 2] = ["ingress", "egress"];

/// Creates a trunk that XDP can read.
fn wire() -> Wire {
    let wire = Wire::veth().unwrap();
    wire.keep_tags().unwrap();
    wire
}

fn attach(wire: &Wire, arguments: &[&str]) -> Attached {
    Attached::start(&wire.host, &wire.trunk, arguments).unwrap()
}

fn detach(host: &Netns, trunk: &str) {
    let ended = vlanfast(host, &["detach", trunk]).unwrap();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}

/// Returns the link or filter that holds a program at a hook; it stays the same when the program is replaced.
fn holder(wire: &Wire, hook: &str) -> String {
    let pin = pins(&wire.trunk).join(format!("{hook}_link"));
    if pin.exists() {
        let link = FdLink::from(PinnedLink::from_pin(pin).unwrap());
        return format!("link {}", link.info().unwrap().id());
    }
    let trunk = &wire.trunk;
    let filter = format!("tc filter show dev {trunk} {hook} | grep -o 'pref.*handle [0-9a-fx]*'");
    wire.host.run(&filter).unwrap()
}

fn holders(wire: &Wire) -> [String; 2] {
    HOOKS.map(|hook| holder(wire, hook))
}

/// Returns the ids of the pinned programs.
fn programs(wire: &Wire) -> [u32; 2] {
    HOOKS.map(|hook| {
        let pin = pins(&wire.trunk).join(format!("{hook}_program"));
        ProgramInfo::from_pin(pin).unwrap().id()
    })
}

fn map(wire: &Wire, name: &str) -> MapInfo {
    MapInfo::from_pin(pins(&wire.trunk).join(name)).unwrap()
}

/// Returns all our programs at the trunk's ingress, as the device itself reports them.
fn at_ingress(wire: &Wire) -> Vec<String> {
    let trunk = wire.trunk.clone();
    let mut found = in_netns(&wire.host.path(), move || {
        let (_, programs) = match kernel_at_least(6, 6) {
            true => SchedClassifier::query_tcx(&trunk, TcAttachType::Ingress)?,
            false => Default::default(),
        };
        Ok(programs
            .iter()
            .map(|_| "tcx".to_owned())
            .collect::<Vec<_>>())
    })
    .unwrap();
    let trunk = &wire.trunk;
    for (what, line) in [
        (
            "clsact",
            format!("tc filter show dev {trunk} ingress | grep -c vlanfast_rx || true"),
        ),
        (
            "xdp",
            format!("ip -d link show {trunk} | grep -c prog/xdp || true"),
        ),
    ] {
        let count: usize = wire.host.run(&line).unwrap().trim().parse().unwrap();
        found.extend(std::iter::repeat_n(what.to_owned(), count));
    }
    found
}

fn tc() -> &'static str {
    if kernel_at_least(6, 6) {
        "tcx"
    } else {
        "clsact"
    }
}

/// Returns the untagged unicast packets counted so far on ingress and egress.
fn counted(attached: &Attached) -> (u64, u64) {
    let (rx, tx) = attached.counters().unwrap();
    let unicast = |sums: &vlanfast_tests::net::tally::Sums| {
        sums.get(&CounterKey::Vlan(0))
            .map_or(0, |sum| sum.packets[0])
    };
    (unicast(&rx), unicast(&tx))
}

/// Runs traffic in both directions while one process follows another, each of which ends in another way: every packet
/// arrives, and every packet is counted once.
fn succession(ingress: &str) {
    let wire = wire();
    let before = Residue::of(&wire.host, &wire.trunk).unwrap();
    let arguments = |more: &[&'static str]| [&["--ingress", ingress], more].concat();
    let mut attached = Attached::start(&wire.host, &wire.trunk, &arguments(&[])).unwrap();
    let first = holders(&wire);
    let counters = map(&wire, "COUNTERS").id();
    let traffic = Traffic::start(&wire, rate()).unwrap();
    let mut so_far = (0, 0);
    for (number, more) in [
        &["--on-exit", "keep"][..],
        &["--on-exit", "keep", "--max-endpoints", "100"],
        &["--max-endpoints", "20000"],
        &["--on-exit", "keep"],
    ]
    .into_iter()
    .enumerate()
    {
        let (old, endpoints) = (programs(&wire), map(&wire, "ENDPOINTS").id());
        // Processes that keep their attachment end in order, and the others are killed.
        match attached.said.contains("stays attached") {
            true => attached.stop().unwrap(),
            false => attached.kill().unwrap(),
        }
        attached = Attached::start(&wire.host, &wire.trunk, &arguments(more)).unwrap();

        assert_eq!(holders(&wire), first, "replaced in place, time {number}");
        assert_eq!(at_ingress(&wire).len(), 1);
        let new = programs(&wire);
        assert!(
            new[0] != old[0] && new[1] != old[1],
            "{new:?} after {old:?}"
        );
        assert_eq!(map(&wire, "COUNTERS").id(), counters, "goes on counting");
        assert_ne!(map(&wire, "ENDPOINTS").id(), endpoints, "is made anew");
        let now = counted(&attached);
        assert!(
            now.0 > so_far.0 && now.1 > so_far.1,
            "{now:?} after {so_far:?}"
        );
        so_far = now;
    }
    assert_eq!(map(&wire, "ENDPOINTS").max_entries(), 16_384);
    let (inwards, outwards) = traffic.stop().unwrap();
    println!("figure: 4 successions at {ingress}: in: {inwards}; out: {outwards}");
    assert_eq!((inwards.lost(), outwards.lost()), (0, 0));
    let all = counted(&attached);
    assert_eq!(all, (inwards.sent, outwards.seen), "each is counted once");
    attached.stop().unwrap();
    assert!(is_pinned(&wire.trunk), "the last was told to keep it");
    detach(&wire.host, &wire.trunk);
    before
        .wait_until_as_before(&wire.host, &wire.trunk)
        .unwrap();
}

#[test]
fn a_succession_loses_and_miscounts_no_packet_at_tc() {
    require!("tc", nix::unistd::geteuid().is_root(), "needs root");
    succession("tc");
}

#[test]
fn a_succession_loses_and_miscounts_no_packet_at_native_xdp() {
    require!("xdp", nix::unistd::geteuid().is_root(), "needs root");
    succession("xdp");
}

#[test]
fn a_succession_loses_and_miscounts_no_packet_at_generic_xdp() {
    require!("generic", nix::unistd::geteuid().is_root(), "needs root");
    succession("xdp-generic");
}

#[test]
fn versions_with_other_maps_follow_each_other_without_losing_a_packet() {
    require!("versions", nix::unistd::geteuid().is_root(), "needs root");
    let wire = wire();
    let before = Residue::of(&wire.host, &wire.trunk).unwrap();
    for ingress in ["tc", "xdp"] {
        let start = |binary| {
            let arguments = ["--ingress", ingress, "--on-exit", "keep"];
            Attached::start_by(binary, &wire.host, &wire.trunk, &arguments).unwrap()
        };
        let mut attached = start(binary());
        let first = holders(&wire);
        let traffic = Traffic::start(&wire, rate()).unwrap();
        let mut size = map(&wire, "COUNTERS").value_size();
        for binary in [next_binary(), binary(), next_binary(), binary()] {
            attached.stop().unwrap();
            attached = start(binary);
            assert_eq!(holders(&wire), first, "replaced in place");
            let other = map(&wire, "COUNTERS").value_size();
            assert_ne!(other, size, "these versions should differ in their maps");
            size = other;
            let counting = counted(&attached);
            thread::sleep(Duration::from_millis(100));
            let later = counted(&attached);
            assert!(later.0 > counting.0 && later.1 > counting.1);
        }
        let (inwards, outwards) = traffic.stop().unwrap();
        println!(
            "figure: 2 upgrades and 2 downgrades at {ingress}: in: {inwards}; out: {outwards}"
        );
        assert_eq!((inwards.lost(), outwards.lost()), (0, 0));
        attached.stop().unwrap();
        detach(&wire.host, &wire.trunk);
        before
            .wait_until_as_before(&wire.host, &wire.trunk)
            .unwrap();
    }
}

#[test]
fn a_kept_attachment_has_no_daemon_and_detach_removes_it() {
    require!("kept", nix::unistd::geteuid().is_root(), "needs root");
    let wire = wire();
    let (host, trunk) = (&wire.host, wire.trunk.as_str());
    let before = Residue::of(host, trunk).unwrap();
    let keep = ["--on-exit", "keep"];
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let attached = attach(&wire, &keep);
        assert!(
            attached.said.contains("vlanfast detach"),
            "{}",
            attached.said
        );
        attached.stop_by(signal).unwrap();
        let status = vlanfast(host, &["status", trunk]).unwrap();
        assert!(status.stdout.contains("no daemon"), "{status:?}");
        assert_eq!(at_ingress(&wire), [tc()]);
    }
    detach(host, trunk);
    before.wait_until_as_before(host, trunk).unwrap();

    // A running process is ended first, even if it was told to keep its attachment.
    let attached = attach(&wire, &keep);
    detach(host, trunk);
    assert!(nix::sys::wait::waitpid(attached.pid(), None).is_ok());
    before.wait_until_as_before(host, trunk).unwrap();
}

#[test]
fn another_ingress_leaves_exactly_one() {
    require!("ingress", nix::unistd::geteuid().is_root(), "needs root");
    let wire = wire();
    let before = Residue::of(&wire.host, &wire.trunk).unwrap();
    let mut egress = None;
    for (ingress, kind, shown) in [
        ("tc", tc(), tc()),
        ("xdp", "xdp-native", "xdp"),
        ("tc", tc(), tc()),
        ("xdp-generic", "xdp-generic", "xdp"),
        ("xdp", "xdp-native", "xdp"),
        ("auto", tc(), tc()),
    ] {
        let attached = attach(&wire, &["--ingress", ingress]);
        assert_eq!(attached.kind("ingress").unwrap(), kind);
        assert_eq!(at_ingress(&wire), [shown], "--ingress {ingress}");
        let now = holder(&wire, "egress");
        assert_eq!(*egress.get_or_insert_with(|| now.clone()), now);
        attached.kill().unwrap();
    }
    detach(&wire.host, &wire.trunk);
    before
        .wait_until_as_before(&wire.host, &wire.trunk)
        .unwrap();
}

#[test]
fn programs_of_others_go_on_running_through_a_replacement() {
    require!("others", nix::unistd::geteuid().is_root(), "needs root");
    let wire = Wire::veth().unwrap();
    let (host, trunk) = (&wire.host, &wire.trunk);
    host.run(&format!("tc qdisc add dev {trunk} clsact"))
        .unwrap();
    let mut others = vec![foreign(&wire, || {
        TcAttachOptions::Netlink(NlOptions::default())
    })];
    if kernel_at_least(6, 6) {
        others.push(foreign(&wire, || {
            TcAttachOptions::TcxOrder(LinkOrder::default())
        }));
    }
    let show = format!("tc filter show dev {trunk} ingress");
    let before = host.run(&show).unwrap();
    let router = Packets::open(&wire.router.path(), WIRE, false).unwrap();
    let mut sent = 0;
    for _ in 0..3 {
        let attached = attach(&wire, &["--ingress", "tc"]);
        (0..5).for_each(|_| router.send(&frame(TRUNK_MAC, &[8, 0], 60)).unwrap());
        sent += 5;
        let start = Instant::now();
        while counted(&attached).0 < sent && start.elapsed() < Duration::from_secs(10) {
            thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(counted(&attached), (sent, 0));
        assert!(others.iter().all(|other| seen(other) == sent));
        attached.kill().unwrap();
    }
    detach(host, trunk);
    assert_eq!(host.run(&show).unwrap(), before, "they kept their places");
}

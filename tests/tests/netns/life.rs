//! The life of an attachment: it is attached, read, stopped and killed, also many times under traffic.

use std::{thread, time::Duration};

use aya::{
    Ebpf,
    maps::PerCpuArray,
    programs::{
        LinkOrder, SchedClassifier, TcAttachType,
        tc::{NlOptions, TcAttachOptions},
    },
};
use nix::sys::signal::Signal;
use vlanfast_common::Counters;
use vlanfast_tests::{
    live::trunk::settle,
    net::{
        capture::Packets,
        namespace::in_netns,
        packet::{TRUNK_MAC, frame, tag},
        tally::{Cast, CounterKey, Sums, add},
        topology::{WIRE, Wire},
        traffic::{Tally, Traffic, rate},
    },
    require,
    run::{
        pins::is_pinned,
        program::{Attached, vlanfast},
        require::{in_the_lab, kernel_at_least},
        residue::Residue,
    },
};

use super::strangers;

#[test]
fn every_signal_that_ends_it_leaves_nothing_behind() {
    require!("signals", nix::unistd::geteuid().is_root(), "needs root");
    let wire = Wire::veth().unwrap();
    wire.keep_tags().unwrap();
    let before = Residue::of(&wire.host, &wire.trunk).unwrap();
    for ingress in ["tc", "xdp", "xdp-generic"] {
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            let attached =
                Attached::start(&wire.host, &wire.trunk, &["--ingress", ingress]).unwrap();
            assert_ne!(Residue::of(&wire.host, &wire.trunk).unwrap(), before);
            attached.stop_by(signal).unwrap();
            before
                .wait_until_as_before(&wire.host, &wire.trunk)
                .unwrap();
        }
    }
}

#[test]
fn detach_clears_up_after_a_kill_and_counts_until_then() {
    require!("kill", nix::unistd::geteuid().is_root(), "needs root");
    let wire = Wire::veth().unwrap();
    wire.keep_tags().unwrap();
    let before = Residue::of(&wire.host, &wire.trunk).unwrap();
    for ingress in ["tc", "xdp", "xdp-generic"] {
        let attached = Attached::start(&wire.host, &wire.trunk, &["--ingress", ingress]).unwrap();
        attached.kill().unwrap();
        assert!(is_pinned(&wire.trunk), "a kill takes nothing off");
        let router = Packets::open(&wire.router.path(), WIRE, false).unwrap();
        router
            .send(&frame(TRUNK_MAC, &[&tag(0, 7)[..], &[8, 0]].concat(), 64))
            .unwrap();
        thread::sleep(Duration::from_millis(100));
        let counters = vlanfast(
            &wire.host,
            &["counters", &wire.trunk, "--vlan", "7", "--json"],
        );
        assert!(counters.unwrap().stdout.contains(r#""unicast":1"#));
        let detach = vlanfast(&wire.host, &["detach", &wire.trunk]).unwrap();
        assert_eq!(detach.code, Some(0), "{}", detach.stderr);
        before
            .wait_until_as_before(&wire.host, &wire.trunk)
            .unwrap();
    }
}

#[test]
fn attach_takes_over_what_a_killed_process_left() {
    require!("takeover", nix::unistd::geteuid().is_root(), "needs root");
    let wire = Wire::veth().unwrap();
    wire.keep_tags().unwrap();
    let before = Residue::of(&wire.host, &wire.trunk).unwrap();
    for ingress in ["tc", "xdp"] {
        Attached::start(&wire.host, &wire.trunk, &["--ingress", ingress])
            .unwrap()
            .kill()
            .unwrap();
        let attached = Attached::start(&wire.host, &wire.trunk, &["--ingress", ingress]).unwrap();
        attached.stop().unwrap();
        before
            .wait_until_as_before(&wire.host, &wire.trunk)
            .unwrap();
    }
}

#[test]
fn detach_ends_the_process_that_is_attached() {
    require!("detach", nix::unistd::geteuid().is_root(), "needs root");
    let wire = Wire::veth().unwrap();
    let before = Residue::of(&wire.host, &wire.trunk).unwrap();
    let attached = Attached::start(&wire.host, &wire.trunk, &[]).unwrap();
    let detach = vlanfast(&wire.host, &["detach", &wire.trunk]).unwrap();
    assert_eq!(detach.code, Some(0), "{}", detach.stderr);
    assert!(nix::sys::wait::waitpid(attached.pid(), None).is_ok());
    before
        .wait_until_as_before(&wire.host, &wire.trunk)
        .unwrap();
    let again = vlanfast(&wire.host, &["detach", &wire.trunk]).unwrap();
    assert_eq!(again.code, Some(0));
    assert!(again.stdout.contains("not attached"), "{}", again.stdout);
}

#[test]
fn messages_are_shown_when_asked_for() {
    require!("messages", nix::unistd::geteuid().is_root(), "needs root");
    let wire = Wire::veth().unwrap();
    let log = format!("/tmp/{}.log", wire.trunk);
    let line = format!(
        "exec {} attach {} -v >{log} 2>&1",
        vlanfast_tests::run::program::binary(),
        wire.trunk
    );
    let mut child = wire.host.command("sh").args(["-c", &line]).spawn().unwrap();
    let said = |word: &str| std::fs::read_to_string(&log).is_ok_and(|text| text.contains(word));
    let wait = |word: &str| {
        (0..600).any(|_| {
            thread::sleep(Duration::from_millis(100));
            said(word)
        })
    };
    assert!(wait("Ctrl-C"));
    let router = Packets::open(&wire.router.path(), WIRE, false).unwrap();
    router
        .send(&frame(
            TRUNK_MAC,
            &[&tag(0, 9)[..], &tag(0, 8), &[8, 0]].concat(),
            68,
        ))
        .unwrap();
    assert!(
        wait("vlan 9: passed, a further tag"),
        "{}",
        std::fs::read_to_string(&log).unwrap()
    );
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    nix::sys::signal::kill(pid, Signal::SIGTERM).unwrap();
    assert!(child.wait().unwrap().success());
    std::fs::remove_file(&log).unwrap();
}

/// Loads a third-party TC program for a test: the object's own program, with counters of its own.
pub fn foreign(wire: &Wire, options: fn() -> TcAttachOptions) -> Ebpf {
    let trunk = wire.trunk.clone();
    in_netns(&wire.host.path(), move || {
        let mut ebpf = strangers();
        let program: &mut SchedClassifier = ebpf.program_mut("stranger_rx").unwrap().try_into()?;
        program.load()?;
        program.attach_with_options(&trunk, TcAttachType::Ingress, options())?;
        Ok(ebpf)
    })
    .unwrap()
}

/// Returns the number of untagged frames that a third-party program saw.
pub fn seen(ebpf: &Ebpf) -> u64 {
    let map = PerCpuArray::<_, Counters>::try_from(ebpf.map("COUNTERS").unwrap()).unwrap();
    map.get(&0, 0)
        .unwrap()
        .iter()
        .map(|counters| counters.rx.total())
        .sum()
}

#[test]
fn programs_of_others_go_on_running() {
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
    let filters = || {
        host.run(&format!("tc filter show dev {trunk} ingress"))
            .unwrap()
    };
    let before = filters();
    assert!(
        before.contains("stranger_rx"),
        "the foreign filter is there: {before}"
    );

    let router = Packets::open(&wire.router.path(), WIRE, false).unwrap();
    let send = || (0..5).for_each(|_| router.send(&frame(TRUNK_MAC, &[8, 0], 60)).unwrap());
    let attached = Attached::start(host, trunk, &["--ingress", "tc"]).unwrap();
    send();
    let mut rx = Sums::new();
    add(&mut rx, CounterKey::Vlan(0), Cast::Unicast, 5, 60);
    settle(&attached, &rx, &Sums::new());
    assert!(
        others.iter().all(|other| seen(other) == 5),
        "each saw what we saw"
    );
    attached.stop().unwrap();

    assert_eq!(
        filters(),
        before,
        "the filter of someone else has kept its place"
    );
    assert!(
        host.run(&format!("tc qdisc show dev {trunk}"))
            .unwrap()
            .contains("clsact")
    );
    send();
    thread::sleep(Duration::from_millis(200));
    assert!(
        others.iter().all(|other| seen(other) == 10),
        "each goes on without us"
    );
}

#[test]
fn any_number_of_programs_may_share_the_hook() {
    require!("many", nix::unistd::geteuid().is_root(), "needs root");
    let wire = Wire::veth().unwrap();
    let (kind, options): (_, fn() -> _) = match kernel_at_least(6, 6) {
        true => ("tcx", || TcAttachOptions::TcxOrder(LinkOrder::default())),
        false => ("clsact", || TcAttachOptions::Netlink(NlOptions::default())),
    };
    wire.host
        .run(&format!("tc qdisc add dev {} clsact", wire.trunk))
        .unwrap();
    let _others: Vec<_> = (0..20).map(|_| foreign(&wire, options)).collect();
    let attached = Attached::start(&wire.host, &wire.trunk, &["--ingress", "tc"]).unwrap();
    assert_eq!(attached.kind("ingress").unwrap(), kind);
    attached.stop().unwrap();
}

/// Runs traffic in both directions while `each` is repeated a number of times.
fn under_traffic(wire: &Wire, times: u32, each: impl Fn()) -> (Tally, Tally) {
    let traffic = Traffic::start(wire, rate()).unwrap();
    (0..times).for_each(|_| each());
    let (inwards, outwards) = traffic.stop().unwrap();
    assert!(
        inwards.sent.min(outwards.sent) > rate(),
        "there was hardly any traffic"
    );
    (inwards, outwards)
}

/// Reduces the repetitions of an action that takes seconds under emulation.
fn few_in_the_lab(times: u32) -> u32 {
    match in_the_lab() {
        true => times / 4,
        false => times,
    }
}

fn attach_and_detach(wire: &Wire) {
    let attached = Attached::start(&wire.host, &wire.trunk, &["--ingress", "tc"]).unwrap();
    attached.stop().unwrap();
}

/// Every packet arrives while vlanfast attaches and detaches, and nothing is left behind.
#[test]
fn attachments_under_traffic_lose_no_packet() {
    require!(
        "attachments",
        nix::unistd::geteuid().is_root(),
        "needs root"
    );
    let times = few_in_the_lab(100);
    let wire = Wire::veth().unwrap();
    if !kernel_at_least(6, 6) {
        // The next test explains this: the qdisc itself costs packets there, with any tool.
        wire.host
            .run(&format!("tc qdisc add dev {} clsact", wire.trunk))
            .unwrap();
    }
    let before = Residue::of(&wire.host, &wire.trunk).unwrap();
    let (inwards, outwards) = under_traffic(&wire, times, || attach_and_detach(&wire));
    println!("figure: {times} attachments: in: {inwards}; out: {outwards}");
    assert_eq!(inwards.lost(), 0, "packets lost on their way in");
    assert_eq!(outwards.lost(), 0, "packets lost on their way out");
    before
        .wait_until_as_before(&wire.host, &wire.trunk)
        .unwrap();
}

/// Linux stops a device's queues while a qdisc is added or removed, even a clsact (`qdisc_graft`), and drops packets
/// meanwhile. Before tcx an attachment cannot avoid this. The previous test shows that the filters cost nothing, and
/// this one that the qdisc alone costs packets without vlanfast too.
#[test]
fn without_tcx_only_the_qdisc_itself_costs_packets() {
    require!("clsact", nix::unistd::geteuid().is_root(), "needs root");
    let times = few_in_the_lab(40);
    let wire = Wire::veth().unwrap();
    let trunk = &wire.trunk;
    let before = Residue::of(&wire.host, trunk).unwrap();
    let qdisc_alone = || {
        wire.host
            .run(&format!(
                "tc qdisc add dev {trunk} clsact && sleep 0.1 && tc qdisc del dev {trunk} clsact"
            ))
            .unwrap();
    };
    let (qdisc_in, qdisc_out) = under_traffic(&wire, times, qdisc_alone);
    let (our_in, our_out) = under_traffic(&wire, times, || attach_and_detach(&wire));
    println!(
        "figure: {times} clsact qdiscs added and removed lose {} packets on their way out; by so many \
         attachments: {}",
        qdisc_out.lost(),
        our_out.lost()
    );
    assert_eq!(
        (qdisc_in.lost(), our_in.lost()),
        (0, 0),
        "lost on their way in"
    );
    if kernel_at_least(6, 6) {
        assert_eq!(our_out.lost(), 0, "tcx needs no qdisc");
    } else if thread::available_parallelism().unwrap().get() > 1 {
        assert!(
            qdisc_out.lost() > 0,
            "this kernel adds a qdisc for free: then vlanfast should lose nothing, and the README say so"
        );
    } else {
        // On one CPU there is no wait for a grace period (`rcu_blocking_is_gp`): only the packets in transmission at
        // that moment are lost, once when the qdisc is added and once when it is removed.
        let most = 2 * i64::from(times);
        assert!(qdisc_out.lost() <= most, "{qdisc_out}");
        assert!(our_out.lost() <= most, "{our_out}");
    }
    before.wait_until_as_before(&wire.host, trunk).unwrap();
}

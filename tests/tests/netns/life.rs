//! Attached, read, stopped, killed, and a hundred times under traffic.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use aya::{
    Ebpf,
    maps::PerCpuArray,
    programs::{
        LinkOrder, TcAttachType,
        tc::{NlOptions, TcAttachOptions},
    },
};
use nix::sys::{
    signal::Signal,
    socket::{setsockopt, sockopt::RcvBufForce},
};
use vlanfast::datapath::load;
use vlanfast_common::Counters;
use vlanfast_tests::{
    capture::{Packets, in_netns},
    packet::{Cast, HOST, Row, Sums, add, frame, tag},
    program::{Attached, is_pinned, vlanfast},
    require,
    require::kernel_at_least,
    residue::Residue,
    scenario::settle,
    topology::{WIRE, Wire},
};

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
            .send(&frame(HOST, &[&tag(0, 7)[..], &[8, 0]].concat(), 64))
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
    assert!(
        again.stdout.contains("nothing attached"),
        "{}",
        again.stdout
    );
}

#[test]
fn messages_are_shown_when_asked_for() {
    require!("messages", nix::unistd::geteuid().is_root(), "needs root");
    let wire = Wire::veth().unwrap();
    let log = format!("/tmp/{}.log", wire.trunk);
    let line = format!(
        "exec {} attach {} -v >{log} 2>&1",
        vlanfast_tests::program::binary(),
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
            HOST,
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

/// Someone else's TC program: the object's own, loaded and attached by the test, with its own counters.
fn foreign(wire: &Wire, options: fn() -> TcAttachOptions) -> Ebpf {
    let trunk = wire.trunk.clone();
    in_netns(&wire.host.path(), move || {
        let mut ebpf = load::load(0)?;
        let program = load::tc(&mut ebpf, load::RX)?;
        program.attach_with_options(&trunk, TcAttachType::Ingress, options())?;
        Ok(ebpf)
    })
    .unwrap()
}

/// How many untagged frames a foreign program saw.
fn seen(ebpf: &Ebpf) -> u64 {
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
        before.contains("vlanfast_rx"),
        "the foreign filter is there: {before}"
    );

    let router = Packets::open(&wire.router.path(), WIRE, false).unwrap();
    let send = || (0..5).for_each(|_| router.send(&frame(HOST, &[8, 0], 60)).unwrap());
    let attached = Attached::start(host, trunk, &["--ingress", "tc"]).unwrap();
    send();
    let mut rx = Sums::new();
    add(&mut rx, Row::Vlan(0), Cast::Unicast, 5, 60);
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

/// 10,000 packets a second while vlanfast comes and goes: each arrives, and nothing is left.
#[test]
fn a_hundred_attachments_under_traffic_lose_no_packet() {
    require!("hundred", nix::unistd::geteuid().is_root(), "needs root");
    const RATE: u64 = 10_000;
    let wire = Wire::veth().unwrap();
    let before = Residue::of(&wire.host, &wire.trunk).unwrap();
    // Both counts are the kernel's: a UDP socket behind the trunk, and the device at the other end.
    let received = || Wire::statistic(&wire.router, WIRE, "rx_packets").unwrap();
    wire.host
        .run(&format!("ip addr add 192.0.2.1/24 dev {}", wire.trunk))
        .unwrap();
    let sink = in_netns(&wire.host.path(), || {
        let socket = std::net::UdpSocket::bind("192.0.2.1:9000")?;
        setsockopt(&socket, RcvBufForce, &(64 << 20))?;
        socket.set_read_timeout(Some(Duration::from_millis(200)))?;
        Ok(socket)
    })
    .unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let counter = thread::spawn({
        let stop = Arc::clone(&stop);
        move || {
            let (mut count, mut buffer) = (0u64, [0u8; 64]);
            loop {
                let last = stop.load(Ordering::Acquire);
                while sink.recv(&mut buffer).is_ok() {
                    count += 1;
                }
                if last {
                    return count;
                }
            }
        }
    });
    let sent_before = received();
    let in_stop = Arc::new(AtomicBool::new(false));
    let inwards = Packets::open(&wire.router.path(), WIRE, false)
        .unwrap()
        .send_steadily(udp_frame(), RATE, Arc::clone(&in_stop));
    let outwards = Packets::open(&wire.host.path(), &wire.trunk, false)
        .unwrap()
        .send_steadily(
            frame([0x02, 0, 0, 0, 0, 0x0b], &[8, 0], 60),
            RATE,
            Arc::clone(&in_stop),
        );
    for _ in 0..100 {
        let attached = Attached::start(&wire.host, &wire.trunk, &["--ingress", "tc"]).unwrap();
        attached.stop().unwrap();
    }
    in_stop.store(true, Ordering::Relaxed);
    let (sent_in, sent_out) = (inwards.join().unwrap(), outwards.join().unwrap());
    thread::sleep(Duration::from_millis(500));
    stop.store(true, Ordering::Release);
    let arrived_in = counter.join().unwrap();
    let arrived_out = received() - sent_before;
    println!(
        "figure: 100 attachments: {sent_in} packets in, {} lost; {sent_out} out, {} lost",
        sent_in as i64 - arrived_in as i64,
        sent_out as i64 - arrived_out as i64
    );
    assert!(
        sent_in > 10_000 && sent_out > 10_000,
        "there was hardly any traffic"
    );
    assert_eq!(arrived_in, sent_in, "packets lost on their way in");
    // The host's own ARP, if any, makes more; never fewer.
    assert!(
        arrived_out >= sent_out,
        "packets lost on their way out: {arrived_out} of {sent_out}"
    );
    wire.host
        .run(&format!("ip addr flush dev {}", wire.trunk))
        .unwrap();
    before
        .wait_until_as_before(&wire.host, &wire.trunk)
        .unwrap();
}

/// A UDP datagram from 192.0.2.2 to 192.0.2.1:9000 (RFC 791, RFC 768; no UDP checksum).
fn udp_frame() -> Vec<u8> {
    let mut ip = vec![
        0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 2, 192, 0, 2, 1,
    ];
    let sum: u32 = ip
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !(((folded & 0xffff) + (folded >> 16)) as u16);
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    let udp = [0x23, 0x29, 0x23, 0x28, 0, 26, 0, 0];
    frame(HOST, &[&[8, 0][..], &ip, &udp].concat(), 60)
}

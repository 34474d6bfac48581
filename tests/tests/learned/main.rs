//! Level `vm`: the learned shortcut, with a router that forwards, filters, translates or is slow.

mod router;

use std::{thread, time::Duration};

use anyhow::Result;
use vlanfast_tests::{
    fixtures::two_vlans::{FAR, NEAR, QuietConnection, TC, TwoVlans, XDP, shortcuts},
    in_the_lab,
    net::{
        capture::Packets,
        cpu,
        echo::EchoConnection,
        namespace::Netns,
        ping::{counter, is_whole, median_time, ping},
        topology::{WIRE, Wire},
        transfer::transfer,
    },
    run::program::{Attached, vlanfast},
};

const LEARNED: &[&str] = &["--shortcut", "learned"];
/// The option probes the router every second.
const OFTEN: &[&str] = &["--shortcut", "learned", "--shortcut-refresh", "1"];
/// The time in which a flow ends after the router stops forwarding it, with a margin.
const END: Duration = Duration::from_millis(2_500);

/// A kind of wire between host and router, and the bounds that hold there.
struct Trunk {
    wire: fn() -> Result<Wire>,
    /// The hooks, one of which must read ingress.
    ingress: &'static [&'static str],
    /// How many pings of a flow may be sent before the router's first answer is back.
    late: u64,
    /// How many segments may be retransmitted; TCP does that too if the machine pauses for 200 ms.
    again: u64,
}

const VETH: Trunk = Trunk {
    wire: Wire::veth,
    ingress: TC,
    late: 10,
    again: 0,
};

/// QEMU's event loop adds a delay to this wire.
const VIRTIO: Trunk = Trunk {
    wire: Wire::virtio,
    ingress: XDP,
    late: 150,
    again: 2,
};

fn both_ways(attached: &Attached) -> u64 {
    shortcuts(attached, 10).unwrap() + shortcuts(attached, 20).unwrap()
}

fn returned(attached: &Attached, vid: u16) -> u64 {
    let row = attached.row(vid).unwrap();
    row["drops"]["returned"].as_u64().unwrap()
}

/// Returns the median of a ping's round trips, in milliseconds.
fn round_trip(from: &Netns) -> f64 {
    let said = ping(from, FAR[0], 101, "").unwrap();
    assert!(is_whole(&said), "{said}");
    median_time(&said).unwrap()
}

fn learn(trunk: &Trunk) {
    let vlans = TwoVlans::on((trunk.wire)().unwrap()).unwrap();
    let attached = vlans.attach_by(trunk.ingress, LEARNED).unwrap();
    let before = vlans.routed().unwrap();
    vlans.pings(200, 63).unwrap();
    transfer(&vlans.near, &vlans.far, FAR[0]).unwrap();
    transfer(&vlans.far, &vlans.near, NEAR[1]).unwrap();
    let taken = both_ways(&attached);
    let routed = vlans.routed().unwrap() - before;
    assert!(taken > 1_500, "{taken} by the shortcut, {routed} routed");
    // Each of eight flows of pings was routed once, and so were the TCP flows, whose ends are the router's.
    assert!(routed >= 8, "{routed}");
    let flows = attached.flows().unwrap();
    let of = |source: &str, protocol: &str| {
        let is_it = |flow: &&serde_json::Value| {
            flow["source"] == source && flow["protocol"] == protocol && flow["state"] == "shortcut"
        };
        flows
            .iter()
            .find(is_it)
            .unwrap_or_else(|| panic!("{flows:#?}"))
    };
    for (source, protocol) in [(NEAR[0], "icmp"), (FAR[1], "icmpv6")] {
        let flow = of(source, protocol);
        let packets = flow["packets"].as_u64().unwrap();
        assert!(packets >= 200 - trunk.late, "{flow:#}");
    }
    let ended = vlanfast(&vlans.wire.host, &["flows", "flush"]).unwrap();
    assert!(ended.stdout.contains("flows forgotten"), "{ended:?}");
    assert_eq!(attached.flows().unwrap().len(), 0);
    attached.stop().unwrap();
}

#[test]
fn flows_that_the_router_forwards_bypass_it() {
    in_the_lab!("learned");
    learn(&VETH);
}

#[test]
fn flows_that_the_router_forwards_bypass_it_behind_virtio() {
    in_the_lab!("learned, virtio");
    learn(&VIRTIO);
}

/// Checks whether a tagged frame is an echo request from the near container to the far one (RFC 792).
fn is_near_ping(frame: &[u8]) -> bool {
    frame.len() > 38
        && frame[16..18] == [8, 0]
        && frame[27] == 1
        && frame[30..34] == [10, 0, 10, 2]
        && frame[38] == 8
}

fn ask_again(trunk: &Trunk) {
    let vlans = TwoVlans::on((trunk.wire)().unwrap()).unwrap();
    let (host, device) = (&vlans.wire.host, &vlans.wire.trunk);
    host.run(&format!("ip link set {device}.10 type vlan egress 0:5"))
        .unwrap();
    let attached = vlans.attach_by(trunk.ingress, OFTEN).unwrap();
    let wire = Packets::open(&vlans.wire.router.path(), WIRE, true).unwrap();
    let connection = EchoConnection::start(&vlans.near, &vlans.far, FAR[0]).unwrap();
    let connection6 = EchoConnection::start(&vlans.far, &vlans.near, NEAR[1]).unwrap();
    let said = ping(&vlans.near, FAR[0], 500, "").unwrap();
    assert!(is_whole(&said), "{said}");
    let said = ping(&vlans.far, NEAR[1], 100, "-s 1400").unwrap();
    assert!(is_whole(&said), "{said}");
    for connection in [connection, connection6] {
        let heard = connection.stop().unwrap();
        println!(
            "figure: {} answers, the longest silence {} ms",
            heard.answers,
            heard.longest_silence.as_millis()
        );
    }
    let mut asked = wire.incoming_with_tags().unwrap();
    asked.retain(|frame| is_near_ping(frame));
    // Of 500 requests, one a second is a probe, and the first ones may be late.
    let count = asked.len() as u64;
    assert!(
        (4..40 + trunk.late).contains(&count),
        "{count} by the router"
    );
    for frame in asked {
        // The frame is unchanged by vlanfast: its tag has PCP 5, and its TTL is the sender's.
        assert_eq!(frame[12..16], [0x81, 0, 0xa0, 10], "{frame:x?}");
        assert_eq!(frame[26], 64, "{frame:x?}");
    }
    // Ten flows run for over five seconds, and their probes return on the receiving container's VLAN.
    let dropped = returned(&attached, 10) + returned(&attached, 20);
    assert!(dropped >= 15, "{dropped}");
    vlans.sent_again_at_most(trunk.again).unwrap();
    attached.stop().unwrap();
}

#[test]
fn probes_do_not_disturb_flows() {
    in_the_lab!("learned, refreshed");
    ask_again(&VETH);
}

#[test]
fn probes_do_not_disturb_flows_behind_virtio() {
    in_the_lab!("learned, refreshed, virtio");
    ask_again(&VIRTIO);
}

#[test]
fn an_idle_connection_is_learnt_anew_and_goes_on() {
    in_the_lab!("learned, begun anew");
    let vlans = TwoVlans::new().unwrap();
    let attached = vlans.attach(OFTEN).unwrap();
    let mut connection = QuietConnection::new(&vlans).unwrap();
    // The connection is idle for longer than a learnt flow is valid.
    for _ in 0..3 {
        let (routed, taken) = (vlans.routed().unwrap(), both_ways(&attached));
        connection.go_on(100).unwrap();
        assert!(vlans.routed().unwrap() > routed, "it asks");
        assert!(both_ways(&attached) > taken + 100);
        thread::sleep(END);
    }
    vlans.sent_again_at_most(0).unwrap();
    attached.stop().unwrap();
}

#[test]
fn a_bulk_transfer_changes_over_without_being_sent_again() {
    in_the_lab!("learned, bulk");
    let vlans = TwoVlans::new().unwrap();
    let on = |device: &str| format!("ethtool -K {device} tso on gso on gro on");
    vlans.wire.host.run(&on(&vlans.wire.trunk)).unwrap();
    vlans.wire.router.run(&on(WIRE)).unwrap();
    for delay in ["0", "500us"] {
        if delay != "0" {
            slow_down(&vlans, delay);
        }
        let attached = vlans.attach(OFTEN).unwrap();
        cpu::on_one(|| {
            for _ in 0..4 {
                transfer(&vlans.near, &vlans.far, FAR[0])?;
                transfer(&vlans.far, &vlans.near, NEAR[1])?;
            }
            Ok(())
        })
        .unwrap();
        let taken = both_ways(&attached);
        println!("figure: {taken} packets of TCP in bulk by the shortcut, router's delay {delay}");
        // The transfer has 23,000 segments, and far fewer acknowledgements.
        assert!(taken > 12_000, "{taken}");
        for end in [&vlans.near, &vlans.far] {
            for name in ["TCPFastRetrans", "TCPTimeouts", "TCPSACKReorder"] {
                let count = counter(end, name).unwrap();
                assert_eq!(count, 0, "{name}, router's delay {delay}");
            }
        }
        attached.stop().unwrap();
    }
}

/// Adds a delay to the router in both directions.
fn slow_down(vlans: &TwoVlans, delay: &str) {
    for vid in [10, 20] {
        let line = format!("tc qdisc add dev {WIRE}.{vid} root netem delay {delay} limit 100000");
        vlans.wire.router.run(&line).unwrap();
    }
}

#[test]
fn a_slow_router_is_waited_for_once() {
    in_the_lab!("learned, slow router");
    for (delay, there_and_back) in [("500us", 1.0), ("5ms", 10.0)] {
        let vlans = TwoVlans::new().unwrap();
        slow_down(&vlans, delay);
        let attached = vlans.attach(&[]).unwrap();
        let routed = round_trip(&vlans.near);
        attached.stop().unwrap();
        let attached = vlans.attach(LEARNED).unwrap();
        let learned = round_trip(&vlans.near);
        println!(
            "figure: {delay} each way: a ping takes {routed} ms by the router, {learned} ms learnt"
        );
        // The delay costs no CPU time. `ping` rounds: 10.004 ms are printed as 10.0.
        assert!(routed >= there_and_back && learned < routed - there_and_back / 2.0);
        attached.stop().unwrap();
    }
}

#[test]
fn without_a_heartbeat_connections_continue_through_the_router() {
    in_the_lab!("learned, no heartbeat");
    let vlans = TwoVlans::new().unwrap();
    let attached = vlans.attach(LEARNED).unwrap();
    let connection = EchoConnection::start(&vlans.near, &vlans.far, FAR[0]).unwrap();
    thread::sleep(Duration::from_secs(2));
    assert!(both_ways(&attached) > 100);
    let before = vlans.routed().unwrap();
    attached.kill().unwrap();
    thread::sleep(Duration::from_secs(5));
    let heard = connection.stop().unwrap();
    assert!(heard.longest_silence < Duration::from_secs(1), "{heard:?}");
    assert!(vlans.routed().unwrap() - before > 100);
    let attached = vlans.attach(LEARNED).unwrap();
    assert!(is_whole(&ping(&vlans.near, FAR[0], 20, "").unwrap()));
    assert!(shortcuts(&attached, 10).unwrap() > 0);
    attached.stop().unwrap();
}

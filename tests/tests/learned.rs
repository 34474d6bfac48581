//! Level `vm`: the shortcut by the router's word, with a router that forwards, filters, translates or is slow.

use std::{
    net::UdpSocket,
    thread,
    time::{Duration, Instant},
};

use vlanfast_tests::{
    capture::{Packets, in_netns},
    cpu,
    house::{
        Connection, FAR, House, NEAR, TC, XDP, counter, is_whole, median_time, ping, shortcuts,
    },
    in_the_lab,
    program::{Attached, vlanfast},
    scenario::transfer,
    talk::Talk,
    topology::{Netns, WIRE, Wire},
};

const LEARNED: &[&str] = &["--shortcut", "learned"];
/// The router is asked again every second.
const OFTEN: &[&str] = &["--shortcut", "learned", "--shortcut-refresh", "1"];
/// Within which a flow ends that the router does not send on any more, and a little more.
const END: Duration = Duration::from_millis(2_500);

/// A table of the router's, with a chain that its forwarded packets go through.
fn filter(house: &House, rule: &str) {
    let line = format!(
        "nft 'add table inet filter; \
         add chain inet filter forward {{ type filter hook forward priority 0; }}; \
         add rule inet filter forward {rule}'"
    );
    house.wire.router.run(&line).unwrap();
}

fn both_ways(attached: &Attached) -> u64 {
    shortcuts(attached, 10).unwrap() + shortcuts(attached, 20).unwrap()
}

fn returned(attached: &Attached, vid: u16) -> u64 {
    let row = attached.row(vid).unwrap();
    row["drops"]["returned"].as_u64().unwrap()
}

/// The median of a ping's round trips, in milliseconds.
fn round_trip(from: &Netns) -> f64 {
    let said = ping(from, FAR[0], 101, "").unwrap();
    assert!(is_whole(&said), "{said}");
    median_time(&said).unwrap()
}

/// On a wire where ingress is read by one of these.
fn learn(wire: Wire, ingress: &[&str]) {
    let house = House::on(wire).unwrap();
    let attached = house.attach_by(ingress, LEARNED).unwrap();
    let before = house.routed().unwrap();
    house.pings(200, 63).unwrap();
    transfer(&house.near, &house.far, FAR[0]).unwrap();
    transfer(&house.far, &house.near, NEAR[1]).unwrap();
    let taken = both_ways(&attached);
    let routed = house.routed().unwrap() - before;
    assert!(taken > 1_500, "{taken} by the shortcut, {routed} routed");
    // Each of eight flows of pings asked once, and so did those of TCP, whose ends are the router's.
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
        // Of 200, those left out that went before the router's answer came.
        assert!(flow["packets"].as_u64().unwrap() >= 150, "{flow:#}");
    }
    let ended = vlanfast(&house.wire.host, &["flows", "flush"]).unwrap();
    assert!(ended.stdout.contains("flows forgotten"), "{ended:?}");
    assert_eq!(attached.flows().unwrap().len(), 0);
    attached.stop().unwrap();
}

#[test]
fn what_the_router_sends_on_does_without_it_from_then_on() {
    in_the_lab!("learned");
    learn(Wire::veth().unwrap(), TC);
}

#[test]
fn what_the_router_sends_on_behind_virtio_does_without_it_from_then_on() {
    in_the_lab!("learned, virtio");
    learn(Wire::virtio().unwrap(), XDP);
}

/// Whether a tagged frame is an echo request of the one container for the other (RFC 792).
fn is_near_ping(frame: &[u8]) -> bool {
    frame.len() > 38
        && frame[16..18] == [8, 0]
        && frame[27] == 1
        && frame[30..34] == [10, 0, 10, 2]
        && frame[38] == 8
}

/// On a wire where ingress is read by one of these.
fn ask_again(wire: Wire, ingress: &[&str]) {
    let house = House::on(wire).unwrap();
    let (host, trunk) = (&house.wire.host, &house.wire.trunk);
    host.run(&format!("ip link set {trunk}.10 type vlan egress 0:5"))
        .unwrap();
    let attached = house.attach_by(ingress, OFTEN).unwrap();
    let wire = Packets::open(&house.wire.router.path(), WIRE, true).unwrap();
    let talk = Talk::start(&house.near, &house.far, FAR[0]).unwrap();
    let talk6 = Talk::start(&house.far, &house.near, NEAR[1]).unwrap();
    let said = ping(&house.near, FAR[0], 500, "").unwrap();
    assert!(is_whole(&said), "{said}");
    let said = ping(&house.far, NEAR[1], 100, "-s 1400").unwrap();
    assert!(is_whole(&said), "{said}");
    for talk in [talk, talk6] {
        let heard = talk.stop().unwrap();
        println!(
            "figure: {} answers, the longest silence {} ms",
            heard.answers,
            heard.longest_silence.as_millis()
        );
    }
    let mut asked = wire.incoming_with_tags().unwrap();
    asked.retain(|frame| is_near_ping(frame));
    // Of 500: once a second, and at first all that go before the answer comes.
    let count = asked.len();
    assert!((4..250).contains(&count), "{count} by the router");
    for frame in asked {
        // As it would be without us: its tag with PCP 5, its TTL.
        assert_eq!(frame[12..16], [0x81, 0, 0xa0, 10], "{frame:x?}");
        assert_eq!(frame[26], 64, "{frame:x?}");
    }
    // Ten flows for five seconds and more, of which each comes back to the taker's VLAN.
    let dropped = returned(&attached, 10) + returned(&attached, 20);
    assert!(dropped >= 15, "{dropped}");
    house.nothing_was_sent_again().unwrap();
    attached.stop().unwrap();
}

#[test]
fn the_router_is_asked_again_and_nobody_notices() {
    in_the_lab!("learned, refreshed");
    ask_again(Wire::veth().unwrap(), TC);
}

#[test]
fn the_router_behind_virtio_is_asked_again_and_nobody_notices() {
    in_the_lab!("learned, refreshed, virtio");
    ask_again(Wire::virtio().unwrap(), XDP);
}

#[test]
fn a_connection_that_rests_begins_anew_and_goes_on() {
    in_the_lab!("learned, begun anew");
    let house = House::new().unwrap();
    let attached = house.attach(OFTEN).unwrap();
    let mut connection = Connection::new(&house).unwrap();
    // It rests for longer than the router is taken at its word.
    for _ in 0..3 {
        let (routed, taken) = (house.routed().unwrap(), both_ways(&attached));
        connection.go_on(100).unwrap();
        assert!(house.routed().unwrap() > routed, "it asks");
        assert!(both_ways(&attached) > taken + 100);
        thread::sleep(END);
    }
    house.nothing_was_sent_again().unwrap();
    attached.stop().unwrap();
}

#[test]
fn a_bulk_transfer_changes_over_without_being_sent_again() {
    in_the_lab!("learned, bulk");
    let house = House::new().unwrap();
    let on = |device: &str| format!("ethtool -K {device} tso on gso on gro on");
    house.wire.host.run(&on(&house.wire.trunk)).unwrap();
    house.wire.router.run(&on(WIRE)).unwrap();
    for delay in ["0", "500us"] {
        if delay != "0" {
            slow_down(&house, delay);
        }
        let attached = house.attach(OFTEN).unwrap();
        cpu::on_one(|| {
            for _ in 0..4 {
                transfer(&house.near, &house.far, FAR[0])?;
                transfer(&house.far, &house.near, NEAR[1])?;
            }
            Ok(())
        })
        .unwrap();
        let taken = both_ways(&attached);
        println!("figure: {taken} packets of TCP in bulk by the shortcut, router's delay {delay}");
        // Of 23,000 segments, and far fewer acknowledgements.
        assert!(taken > 12_000, "{taken}");
        for end in [&house.near, &house.far] {
            for name in ["TCPFastRetrans", "TCPTimeouts", "TCPSACKReorder"] {
                let count = counter(end, name).unwrap();
                assert_eq!(count, 0, "{name}, router's delay {delay}");
            }
        }
        attached.stop().unwrap();
    }
}

/// Has the router take its time, each way.
fn slow_down(house: &House, delay: &str) {
    for vid in [10, 20] {
        let line = format!("tc qdisc add dev {WIRE}.{vid} root netem delay {delay} limit 100000");
        house.wire.router.run(&line).unwrap();
    }
}

#[test]
fn a_router_that_takes_its_time_is_waited_for_once() {
    in_the_lab!("learned, slow router");
    for (delay, there_and_back) in [("500us", 1.0), ("5ms", 10.0)] {
        let house = House::new().unwrap();
        slow_down(&house, delay);
        let attached = house.attach(&[]).unwrap();
        let routed = round_trip(&house.near);
        attached.stop().unwrap();
        let attached = house.attach(LEARNED).unwrap();
        let learned = round_trip(&house.near);
        println!(
            "figure: {delay} each way: a ping takes {routed} ms by the router, {learned} ms learnt"
        );
        // The delay takes no time of the machine's.
        assert!(routed > there_and_back && learned < routed - there_and_back / 2.0);
        attached.stop().unwrap();
    }
}

#[test]
fn what_the_router_drops_is_never_delivered() {
    in_the_lab!("learned, filtered");
    let house = House::new().unwrap();
    filter(&house, "udp dport 81 drop");
    let attached = house.attach(OFTEN).unwrap();
    let [open, closed] = [80, 81].map(|port| Datagrams::new(&house, port));
    for _ in 0..3 {
        assert_eq!(closed.arrive(20), 0);
        assert_eq!(open.arrive(20), 20);
    }
    let taken = shortcuts(&attached, 10).unwrap();
    assert!(taken > 40, "{taken}");
    // A rule that comes later.
    filter(&house, "udp dport 80 drop");
    let start = Instant::now();
    while open.arrive(1) == 1 {
        assert!(start.elapsed() < END, "still delivered");
    }
    assert_eq!(open.arrive(20) + closed.arrive(20), 0);
    let other = Datagrams::new(&house, 82);
    assert_eq!(other.arrive(20), 20);
    attached.stop().unwrap();
}

/// A flow of datagrams.
struct Datagrams {
    sender: UdpSocket,
    taker: UdpSocket,
}

impl Datagrams {
    fn new(house: &House, port: u16) -> Self {
        let bind = |netns: &Netns, port| {
            in_netns(&netns.path(), move || {
                Ok(UdpSocket::bind(("0.0.0.0", port))?)
            })
            .unwrap()
        };
        let (sender, taker) = (bind(&house.near, 0), bind(&house.far, port));
        sender.connect((FAR[0], port)).unwrap();
        let patience = Duration::from_millis(200);
        taker.set_read_timeout(Some(patience)).unwrap();
        Self { sender, taker }
    }

    /// Sends so many; how many arrive, each once and in order.
    fn arrive(&self, count: u8) -> u8 {
        let mut arrived = 0;
        for number in 0..count {
            self.sender.send(&[number; 16]).unwrap();
            let mut payload = [0; 32];
            if self.taker.recv(&mut payload).is_ok() {
                assert_eq!(payload[..16], [number; 16]);
                arrived += 1;
            }
        }
        arrived
    }
}

#[test]
fn what_the_router_translates_is_the_routers() {
    in_the_lab!("learned, translated");
    let house = House::new().unwrap();
    house
        .wire
        .router
        .run(
            "nft 'add table ip nat; \
             add chain ip nat postrouting { type nat hook postrouting priority 100; }; \
             add rule ip nat postrouting ip saddr 10.0.10.0/24 masquerade'",
        )
        .unwrap();
    let attached = house.attach(OFTEN).unwrap();
    let said = ping(&house.near, FAR[0], 200, "").unwrap();
    assert!(is_whole(&said), "{said}");
    transfer(&house.near, &house.far, FAR[0]).unwrap();
    assert_eq!(both_ways(&attached), 0);
    attached.stop().unwrap();
}

#[test]
fn a_router_that_is_dead_ends_what_it_allowed() {
    in_the_lab!("learned, dead router");
    let house = House::new().unwrap();
    let attached = house.attach(OFTEN).unwrap();
    let open = Datagrams::new(&house, 80);
    assert_eq!(open.arrive(20), 20);
    house
        .wire
        .router
        .run("echo 0 >/proc/sys/net/ipv4/ip_forward")
        .unwrap();
    assert_eq!(Datagrams::new(&house, 81).arrive(5), 0, "a new one");
    let start = Instant::now();
    while open.arrive(1) == 1 {
        assert!(start.elapsed() < END, "still delivered");
    }
    assert_eq!(open.arrive(10), 0);
    let failures = &attached.flows().unwrap();
    assert!(
        failures.iter().all(|flow| flow["state"] == "candidate"),
        "{failures:#?}"
    );
    attached.stop().unwrap();
}

#[test]
fn what_changes_behind_the_trunk_is_asked_anew() {
    in_the_lab!("learned, sync");
    let house = House::new().unwrap();
    let attached = house.attach(LEARNED).unwrap();
    let learnt = || {
        let said = ping(&house.near, FAR[0], 20, "").unwrap();
        assert!(is_whole(&said), "{said}");
        let flows = attached.flows().unwrap();
        flows
            .iter()
            .any(|flow| flow["source"] == NEAR[0] && flow["state"] == "shortcut")
    };
    assert!(learnt());
    house.far.run("ip addr del 10.0.20.2/24 dev eth0").unwrap();
    thread::sleep(Duration::from_millis(300));
    assert_eq!(attached.flows().unwrap().len(), 0);
    house
        .far
        .run("ip addr add 10.0.20.2/24 dev eth0 && ip route add default via 10.0.20.1")
        .unwrap();
    thread::sleep(Duration::from_millis(300));
    assert!(learnt());
    // Another gateway: the router by another MAC.
    let open = Datagrams::new(&house, 80);
    assert_eq!(open.arrive(20), 20);
    let routed = house.routed().unwrap();
    assert_eq!(open.arrive(20), 20);
    assert_eq!(house.routed().unwrap(), routed);
    house
        .wire
        .router
        .run(&format!("ip link set {WIRE}.10 address 02:00:00:00:00:99"))
        .unwrap();
    house.near.run("ip neigh flush all").unwrap();
    assert_eq!(open.arrive(20), 20);
    assert!(house.routed().unwrap() > routed);
    attached.stop().unwrap();
}

#[test]
fn without_a_heartbeat_connections_go_on_by_the_router() {
    in_the_lab!("learned, no heartbeat");
    let house = House::new().unwrap();
    let attached = house.attach(LEARNED).unwrap();
    let talk = Talk::start(&house.near, &house.far, FAR[0]).unwrap();
    thread::sleep(Duration::from_secs(2));
    assert!(both_ways(&attached) > 100);
    let before = house.routed().unwrap();
    attached.kill().unwrap();
    thread::sleep(Duration::from_secs(5));
    let heard = talk.stop().unwrap();
    assert!(heard.longest_silence < Duration::from_secs(1), "{heard:?}");
    assert!(house.routed().unwrap() - before > 100);
    let attached = house.attach(LEARNED).unwrap();
    assert!(is_whole(&ping(&house.near, FAR[0], 20, "").unwrap()));
    assert!(shortcuts(&attached, 10).unwrap() > 0);
    attached.stop().unwrap();
}

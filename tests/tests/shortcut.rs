//! Level `vm`: packets between two VLANs of one host, by the router and by the shortcut.

use std::{thread, time::Duration};

use vlanfast_tests::{
    in_the_lab,
    program::Attached,
    scenario::transfer,
    topology::{Netns, WIRE, Wire},
};

/// A container on each of two VLANs, and the router between them.
struct House {
    wire: Wire,
    near: Netns,
    far: Netns,
}

const NEAR: [&str; 2] = ["10.0.10.2", "fd00:10::2"];
const FAR: [&str; 2] = ["10.0.20.2", "fd00:20::2"];

impl House {
    fn new() -> Self {
        let wire = Wire::veth().unwrap();
        let containers = [10, 20].map(|vid| {
            wire.vlan(vid).unwrap();
            let ipv6 = |device: &str| format!("echo 0 >/proc/sys/net/ipv6/conf/{device}/disable_ipv6");
            let gateway = format!("{WIRE}.{vid}");
            wire.router
                .run(&format!(
                    "{} && ip addr add 10.0.{vid}.1/24 dev {gateway} && \
                     ip addr add fd00:{vid}::1/64 dev {gateway} nodad",
                    ipv6(&gateway)
                ))
                .unwrap();
            let container = wire.container(vid, &format!("10.0.{vid}.2")).unwrap();
            container
                .run(&format!(
                    "{} && ip addr add fd00:{vid}::2/64 dev eth0 nodad && \
                     ip route add default via 10.0.{vid}.1 && ip -6 route add default via fd00:{vid}::1",
                    ipv6("eth0")
                ))
                .unwrap();
            container
        });
        let forward = "echo 1 >/proc/sys/net/ipv4/ip_forward; \
                       echo 1 >/proc/sys/net/ipv6/conf/all/forwarding";
        wire.router.run(forward).unwrap();
        let [near, far] = containers;
        Self { wire, near, far }
    }

    fn attach(&self, arguments: &[&str]) -> Attached {
        Attached::start(&self.wire.host, &self.wire.trunk, arguments).unwrap()
    }

    fn shortcut(&self) -> Attached {
        self.attach(&["--shortcut", "allow", "--shortcut-allow", "10:20"])
    }

    /// Packets that the router has forwarded, in both protocols.
    fn routed(&self) -> u64 {
        let text = "cat /proc/net/snmp /proc/net/snmp6";
        let text = self.wire.router.run(text).unwrap();
        let words = |line: &str| {
            line.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let mut ip = text
            .lines()
            .filter(|line| line.starts_with("Ip:"))
            .map(words);
        let (names, values) = (ip.next().unwrap(), ip.next().unwrap());
        let place = names
            .iter()
            .position(|name| name == "ForwDatagrams")
            .unwrap();
        let mut ip6 = text.lines().map(words);
        let forwarded6 = ip6.find(|words| words[0] == "Ip6OutForwDatagrams").unwrap();
        values[place].parse::<u64>().unwrap() + forwarded6[1].parse::<u64>().unwrap()
    }
}

/// What a ping of so many says, with further options.
fn ping(from: &Netns, address: &str, count: u32, options: &str) -> String {
    let line = format!("ping -n -c {count} -i 0.01 -W 2 {options} {address} || true");
    from.run(&line).unwrap()
}

fn is_whole(said: &str) -> bool {
    said.contains(" 0% packet loss") && !said.contains("DUP!")
}

fn shortcuts(attached: &Attached, vid: u16) -> u64 {
    let row = attached.row(vid).unwrap();
    row["verdicts"]["tx"]["shortcut"].as_u64().unwrap()
}

/// Both ways, in both protocols; the TTL of what arrives.
fn pings(house: &House, ttl: u8) {
    for (from, addresses) in [(&house.near, FAR), (&house.far, NEAR)] {
        for address in addresses {
            let said = ping(from, address, 50, "");
            assert!(is_whole(&said), "{said}");
            assert!(said.contains(&format!("ttl={ttl} ")), "{said}");
        }
    }
}

#[test]
fn what_is_allowed_does_without_the_router() {
    in_the_lab!("shortcut");
    let house = House::new();
    let attached = house.attach(&[]);
    let before = house.routed();
    pings(&house, 63);
    assert!(house.routed() - before >= 400, "by the router");
    attached.stop().unwrap();

    let attached = house.shortcut();
    let before = house.routed();
    pings(&house, 63);
    transfer(&house.near, &house.far, FAR[0]).unwrap();
    transfer(&house.far, &house.near, NEAR[1]).unwrap();
    assert_eq!(house.routed() - before, 0, "nothing is for the router");
    assert!(shortcuts(&attached, 10) > 200 && shortcuts(&attached, 20) > 200);
    let counters = attached.row(10).unwrap();
    // No more than the router's answers for itself.
    let unicast = counters["rx"]["packets"]["unicast"].as_u64().unwrap();
    assert!(unicast < 20, "{counters:#}");
    // What is larger than fits is split by the sender, and fragments are the router's.
    let said = ping(&house.near, FAR[0], 3, "-s 4000");
    assert!(is_whole(&said) && house.routed() > before, "{said}");
    attached.stop().unwrap();
}

#[test]
fn a_route_is_traced_through_the_router_all_the_same() {
    in_the_lab!("shortcut, traceroute");
    let house = House::new();
    for arguments in [
        &[][..],
        &["--shortcut", "allow", "--shortcut-allow", "20:10,30:40"],
    ] {
        let attached = house.attach(arguments);
        for (address, router) in FAR.into_iter().zip(["10.0.10.1", "fd00:10::1"]) {
            let said = ping(&house.near, address, 1, "-t 1");
            let expired = said.contains("Time to live exceeded") || said.contains("Hop limit");
            assert!(expired && said.contains(router), "{said}");
            let said = ping(&house.near, address, 1, "-t 2");
            assert!(is_whole(&said), "{said}");
        }
        attached.stop().unwrap();
    }
}

#[test]
fn what_is_not_allowed_or_does_not_fit_is_the_routers() {
    in_the_lab!("shortcut, not taken");
    let house = House::new();
    let attached = house.attach(&["--shortcut", "allow", "--shortcut-allow", "10:30"]);
    let before = house.routed();
    pings(&house, 63);
    assert!(house.routed() - before >= 400);
    assert_eq!(shortcuts(&attached, 10), 0);
    attached.stop().unwrap();

    let attached = house.shortcut();
    let trunk = &house.wire.trunk;
    house
        .wire
        .host
        .run(&format!("ip link set {trunk}.20 mtu 1400"))
        .unwrap();
    let line = format!("ip link set {WIRE}.20 mtu 1400");
    house.wire.router.run(&line).unwrap();
    thread::sleep(Duration::from_millis(300));
    let said = ping(&house.near, FAR[0], 1, "-M do -s 1400");
    assert!(
        said.contains("Frag needed and DF set (mtu = 1400)"),
        "{said}"
    );
    let before = shortcuts(&attached, 10);
    let said = ping(&house.near, FAR[0], 10, "-M do -s 1372");
    assert!(is_whole(&said), "{said}");
    assert!(shortcuts(&attached, 10) >= before + 10);
    attached.stop().unwrap();
}

#[test]
fn a_container_that_goes_takes_its_routes_with_it() {
    in_the_lab!("shortcut, sync");
    let house = House::new();
    let attached = house.shortcut();
    assert!(is_whole(&ping(&house.near, FAR[0], 3, "")));
    house
        .far
        .run("ip addr del 10.0.20.2/24 dev eth0 && ip addr add 10.0.20.3/24 dev eth0")
        .unwrap();
    house.far.run("ip route add default via 10.0.20.1").unwrap();
    thread::sleep(Duration::from_millis(300));
    let taken = shortcuts(&attached, 10);
    let said = ping(&house.near, FAR[0], 2, "");
    assert!(said.contains("100% packet loss"), "{said}");
    assert_eq!(shortcuts(&attached, 10), taken);
    assert!(is_whole(&ping(&house.near, "10.0.20.3", 3, "")));
    assert!(shortcuts(&attached, 10) > taken);
    attached.stop().unwrap();
}

#[test]
fn without_a_heartbeat_the_router_has_it_all() {
    in_the_lab!("shortcut, no heartbeat");
    let house = House::new();
    let attached = house.shortcut();
    let before = house.routed();
    thread::scope(|scope| {
        let talking = scope.spawn(|| ping(&house.near, FAR[0], 800, ""));
        thread::sleep(Duration::from_secs(2));
        assert_eq!(house.routed() - before, 0);
        attached.kill().unwrap();
        let said = talking.join().unwrap();
        assert!(is_whole(&said), "{said}");
    });
    assert!(house.routed() > before);
    let attached = house.shortcut();
    let before = house.routed();
    assert!(is_whole(&ping(&house.near, FAR[0], 10, "")));
    assert_eq!(house.routed() - before, 0);
    attached.stop().unwrap();
}

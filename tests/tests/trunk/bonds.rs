//! A bond that fails over under traffic, and changes its MAC with that (`fail_over_mac active`).

use std::{thread, time::Duration};

use vlanfast_tests::{
    fixtures::macvlans::attach,
    in_the_lab,
    net::{
        namespace::{Netns, unique},
        topology::{WIRE, Wire},
    },
    run::observe::eventually,
};

const HOST: [&str; 2] = ["10.9.0.250", "fd00:9::250"];
const CONTAINER: [&str; 2] = ["10.9.0.2", "fd00:9::2"];
const ROUTER: [&str; 2] = ["10.9.0.1", "fd00:9::1"];

/// The MAC of the bond's second port.
const SECOND: [u8; 6] = [2, 0, 0, 0, 0, 0x1a];

/// A switch at the other end of both ports of a bond, with a host and a container on VLAN 10 of the bond.
struct Bonded {
    container: Netns,
    wire: Wire,
}

impl Bonded {
    fn new() -> Self {
        let mut wire = Wire::veth().unwrap();
        let (bond, other) = (unique(), unique());
        let (first, router) = (&wire.trunk, &wire.router.name);
        wire.host
            .run(&format!(
                "ip link add {other} address 02:00:00:00:00:1a type veth peer name {WIRE}1 netns {router} && \
                 ip link add {bond} type bond mode active-backup fail_over_mac active miimon 50 && \
                 for port in {first} {other}; do \
                     ip link set $port down && ip link set $port master {bond} || exit; \
                 done; \
                 ip link set {bond} up && ip link add link {bond} name {bond}.10 type vlan id 10"
            ))
            .unwrap();
        wire.router
            .run(&format!(
                "ip link add sw type bridge forward_delay 0 mcast_snooping 0 && \
                 for port in {WIRE} {WIRE}1; do \
                     ip link set $port master sw && ip link set $port up || exit; \
                 done; \
                 ip link set sw up && ip link add link sw name sw.10 type vlan id 10"
            ))
            .unwrap();
        let container = Netns::new().unwrap();
        wire.host
            .run(&format!(
                "ip link add link {bond}.10 name mv0 type macvlan mode bridge && ip link set mv0 netns {}",
                container.name
            ))
            .unwrap();
        wire.trunk = bond.clone();
        address(&wire.host, &format!("{bond}.10"), HOST);
        address(&wire.router, "sw.10", ROUTER);
        address(&container, "mv0", CONTAINER);
        Self { container, wire }
    }

    /// Pings while the active port loses its carrier; returns how many of 100 requests were lost.
    fn lost(&self, from: &Netns, address: &str) -> u32 {
        let line = format!("ping -q -n -c 100 -i 0.05 -W 1 {address} || true");
        let warm = format!("ping -q -n -c 3 -i 0.2 -W 1 {address} >/dev/null; true");
        from.run(&warm).unwrap();
        let said = thread::scope(|scope| {
            let pings = scope.spawn(|| from.run(&line).unwrap());
            thread::sleep(Duration::from_millis(1500));
            self.fail_over();
            pings.join().unwrap()
        });
        let words: Vec<_> = said.split_whitespace().collect();
        let received = words.iter().position(|word| word.starts_with("received"));
        100 - words[received.unwrap() - 1].parse::<u32>().unwrap()
    }

    fn fail_over(&self) {
        let (host, bond) = (&self.wire.host, &self.wire.trunk);
        // The bond has the MAC of its active port.
        let mac = host.mac(bond).unwrap();
        let port = match mac {
            SECOND => format!("{WIRE}1"),
            _ => WIRE.to_owned(),
        };
        let router = &self.wire.router;
        router.run(&format!("ip link set {port} down")).unwrap();
        thread::sleep(Duration::from_secs(1));
        assert_ne!(host.mac(bond).unwrap(), mac, "it did not fail over");
        router.run(&format!("ip link set {port} up")).unwrap();
    }
}

fn address(netns: &Netns, device: &str, [ipv4, ipv6]: [&str; 2]) {
    netns
        .run(&format!(
            "echo 0 >/proc/sys/net/ipv6/conf/{device}/disable_ipv6; ip addr add {ipv4}/24 dev {device} && \
             ip addr add {ipv6}/64 dev {device} nodad && ip link set {device} up"
        ))
        .unwrap();
}

/// The wire is the reference: host and container cannot reach each other without vlanfast.
#[test]
fn a_bond_that_fails_over_is_followed() {
    in_the_lab!("fail_over_mac");
    let bonded = Bonded::new();
    let (host, router, container) = (&bonded.wire.host, &bonded.wire.router, &bonded.container);
    for family in [0, 1] {
        let from_wire = bonded.lost(router, HOST[family]);
        let to_wire = bonded.lost(host, ROUTER[family]);
        println!(
            "figure: a bond fails over: {from_wire} and {to_wire} of 100 pings lost with the wire, without vlanfast"
        );
        assert!(from_wire < 50 && to_wire < 50);
        let attached = attach(&bonded.wire, &["--host-access", "10"]);
        eventually("the container", &attached, |rows| rows.len() == 1);
        let to_host = bonded.lost(container, HOST[family]);
        let from_host = bonded.lost(host, CONTAINER[family]);
        println!(
            "figure: a bond fails over: {to_host} and {from_host} of 100 pings lost between container and host"
        );
        assert!(
            to_host <= from_wire + 2,
            "to the host: {to_host}, by the wire {from_wire}"
        );
        assert!(
            from_host <= to_wire + 2,
            "from the host: {from_host}, by the wire {to_wire}"
        );
        attached.stop().unwrap();
    }
}

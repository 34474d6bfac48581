//! Packets that the router drops or translates, a router that has failed, and changes on the far side of the trunk.

use std::{
    net::UdpSocket,
    thread,
    time::{Duration, Instant},
};

use vlanfast_tests::{
    fixtures::two_vlans::{FAR, NEAR, TwoVlans, shortcuts},
    in_the_lab,
    net::{
        namespace::{Netns, in_netns},
        ping::{is_whole, ping},
        topology::WIRE,
        transfer::transfer,
    },
};

use super::{END, LEARNED, OFTEN, both_ways};

/// Adds a table on the router with a chain for forwarded packets.
fn filter(vlans: &TwoVlans, rule: &str) {
    let line = format!(
        "nft 'add table inet filter; \
         add chain inet filter forward {{ type filter hook forward priority 0; }}; \
         add rule inet filter forward {rule}'"
    );
    vlans.wire.router.run(&line).unwrap();
}

#[test]
fn packets_that_the_router_drops_are_never_delivered() {
    in_the_lab!("learned, filtered");
    let vlans = TwoVlans::new().unwrap();
    filter(&vlans, "udp dport 81 drop");
    let attached = vlans.attach(OFTEN).unwrap();
    let [open, closed] = [80, 81].map(|port| Datagrams::new(&vlans, port));
    for _ in 0..3 {
        assert_eq!(closed.arrive(20), 0);
        assert_eq!(open.arrive(20), 20);
    }
    let taken = shortcuts(&attached, 10).unwrap();
    assert!(taken > 40, "{taken}");
    // This rule is added once the flow is learnt.
    filter(&vlans, "udp dport 80 drop");
    let start = Instant::now();
    while open.arrive(1) == 1 {
        assert!(start.elapsed() < END, "still delivered");
    }
    assert_eq!(open.arrive(20) + closed.arrive(20), 0);
    let other = Datagrams::new(&vlans, 82);
    assert_eq!(other.arrive(20), 20);
    attached.stop().unwrap();
}

/// A flow of datagrams.
struct Datagrams {
    sender: UdpSocket,
    receiver: UdpSocket,
}

impl Datagrams {
    fn new(vlans: &TwoVlans, port: u16) -> Self {
        let bind = |netns: &Netns, port| {
            in_netns(&netns.path(), move || {
                Ok(UdpSocket::bind(("0.0.0.0", port))?)
            })
            .unwrap()
        };
        let (sender, receiver) = (bind(&vlans.near, 0), bind(&vlans.far, port));
        sender.connect((FAR[0], port)).unwrap();
        let patience = Duration::from_millis(200);
        receiver.set_read_timeout(Some(patience)).unwrap();
        Self { sender, receiver }
    }

    /// Sends a number of datagrams; returns how many arrive, each once and in order.
    fn arrive(&self, count: u8) -> u8 {
        let mut arrived = 0;
        for number in 0..count {
            self.sender.send(&[number; 16]).unwrap();
            let mut payload = [0; 32];
            if self.receiver.recv(&mut payload).is_ok() {
                assert_eq!(payload[..16], [number; 16]);
                arrived += 1;
            }
        }
        arrived
    }
}

#[test]
fn translated_packets_stay_with_the_router() {
    in_the_lab!("learned, translated");
    let vlans = TwoVlans::new().unwrap();
    vlans
        .wire
        .router
        .run(
            "nft 'add table ip nat; \
             add chain ip nat postrouting { type nat hook postrouting priority 100; }; \
             add rule ip nat postrouting ip saddr 10.0.10.0/24 masquerade'",
        )
        .unwrap();
    let attached = vlans.attach(OFTEN).unwrap();
    let said = ping(&vlans.near, FAR[0], 200, "").unwrap();
    assert!(is_whole(&said), "{said}");
    transfer(&vlans.near, &vlans.far, FAR[0]).unwrap();
    assert_eq!(both_ways(&attached), 0);
    attached.stop().unwrap();
}

#[test]
fn flows_end_when_the_router_is_dead() {
    in_the_lab!("learned, dead router");
    let vlans = TwoVlans::new().unwrap();
    let attached = vlans.attach(OFTEN).unwrap();
    let open = Datagrams::new(&vlans, 80);
    assert_eq!(open.arrive(20), 20);
    vlans
        .wire
        .router
        .run("echo 0 >/proc/sys/net/ipv4/ip_forward")
        .unwrap();
    assert_eq!(Datagrams::new(&vlans, 81).arrive(5), 0, "a new one");
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
fn flows_are_learnt_anew_after_a_change_behind_the_trunk() {
    in_the_lab!("learned, sync");
    let vlans = TwoVlans::new().unwrap();
    let attached = vlans.attach(LEARNED).unwrap();
    let learnt = || {
        let said = ping(&vlans.near, FAR[0], 20, "").unwrap();
        assert!(is_whole(&said), "{said}");
        let flows = attached.flows().unwrap();
        flows
            .iter()
            .any(|flow| flow["source"] == NEAR[0] && flow["state"] == "shortcut")
    };
    assert!(learnt());
    vlans.far.run("ip addr del 10.0.20.2/24 dev eth0").unwrap();
    thread::sleep(Duration::from_millis(300));
    assert_eq!(attached.flows().unwrap().len(), 0);
    vlans
        .far
        .run("ip addr add 10.0.20.2/24 dev eth0 && ip route add default via 10.0.20.1")
        .unwrap();
    thread::sleep(Duration::from_millis(300));
    assert!(learnt());
    // The gateway changes: the same router gets another MAC.
    let open = Datagrams::new(&vlans, 80);
    assert_eq!(open.arrive(20), 20);
    let routed = vlans.routed().unwrap();
    assert_eq!(open.arrive(20), 20);
    assert_eq!(vlans.routed().unwrap(), routed);
    vlans
        .wire
        .router
        .run(&format!("ip link set {WIRE}.10 address 02:00:00:00:00:99"))
        .unwrap();
    vlans.near.run("ip neigh flush all").unwrap();
    assert_eq!(open.arrive(20), 20);
    assert!(vlans.routed().unwrap() > routed);
    attached.stop().unwrap();
}

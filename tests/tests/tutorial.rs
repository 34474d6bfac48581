//! Level `vm`: the tutorial from which the project started, with real Docker, command by command, without vlanfast
//! and with it, by XDP and by TC. Every ping and traceroute must give the result that the tutorial shows, and every
//! frame that the router sends or receives must be counted.

use std::{thread, time::Duration};

use vlanfast_tests::{
    fixtures::tutorial::Tutorial,
    live::trunk::settle,
    net::{
        capture::Sniffer,
        namespace::{Netns, run},
        tally::{CounterKey, Sum, Sums},
        topology::WIRE,
    },
    require,
    run::{
        program::Attached,
        require::{in_the_lab, kernel_at_least},
    },
};

/// The commands of the tutorial, and words from their output.
const LOOKS: &[(&str, &[&str])] = &[
    (
        "ip -d addr show | grep 'mtu\\|vlan'",
        &[
            "eth0.10@eth0",
            "eth0.20@eth0",
            "802.1Q id 10",
            "802.1Q id 20",
        ],
    ),
    ("docker network ls", &["macvlan10", "macvlan20"]),
    (
        "docker network inspect macvlan10",
        &[
            "\"parent\": \"eth0.10\"",
            "\"EnableIPv6\": true",
            "10.0.10.1",
        ],
    ),
    ("docker ps", &["container0", "container1", "container2"]),
    (
        "docker inspect container1",
        &[
            "10.0.10.3",
            "2001:db8:babe:10::3",
            "10.0.20.3",
            "2001:db8:babe:20::3",
        ],
    ),
    (
        "docker exec container1 ip addr | grep 'mtu\\|inet'",
        &["10.0.10.3/24", "10.0.20.3/24", "eth0@if", "eth1@if"],
    ),
    (
        "docker exec container1 ip route",
        &["default via 10.0.10.1 dev eth0", "10.0.20.0/24 dev eth1"],
    ),
    (
        "docker exec container1 ip -6 route",
        &[
            "2001:db8:babe:10::/64 dev eth0",
            "2001:db8:babe:20::/64 dev eth1",
        ],
    ),
];

/// The tutorial's pings and their IPv6 counterparts in both directions: from a container to an address.
const PINGS: &[(&str, &str)] = &[
    ("container1", "10.0.10.2"),
    ("container1", "10.0.20.4"),
    ("container1", "10.0.10.1"),
    ("container1", "10.0.20.1"),
    ("container1", "2001:db8:babe:10::2"),
    ("container1", "2001:db8:babe:20::4"),
    ("container1", "2001:db8:babe:10::1"),
    ("container1", "2001:db8:babe:20::1"),
    ("container0", "10.0.20.4"),
    ("container2", "10.0.10.2"),
    ("container0", "2001:db8:babe:20::4"),
    ("container2", "2001:db8:babe:10::2"),
];

/// Pings every address of a container from the router.
const FROM_ROUTER: &[&str] = &[
    "10.0.10.2",
    "10.0.10.3",
    "10.0.20.3",
    "10.0.20.4",
    "2001:db8:babe:10::2",
    "2001:db8:babe:10::3",
    "2001:db8:babe:20::3",
    "2001:db8:babe:20::4",
];

/// The tutorial's traceroutes with their hops, and those in the reverse direction.
const TRACEROUTES: &[(&str, &str, &[&str])] = &[
    ("container0", "10.0.10.3", &["10.0.10.3"]),
    ("container0", "10.0.20.3", &["10.0.10.1", "10.0.20.3"]),
    ("container0", "10.0.20.4", &["10.0.10.1", "10.0.20.4"]),
    ("container2", "10.0.20.3", &["10.0.20.3"]),
    ("container2", "10.0.10.2", &["10.0.20.1", "10.0.10.2"]),
];

/// Runs every ping and traceroute of the tutorial.
fn tutorial(router: &Netns) {
    for (container, address) in PINGS {
        let said = run(&format!("docker exec {container} ping -c 4 {address}"))
            .unwrap_or_else(|error| panic!("{container} to {address}: {error:#}"));
        let all = "4 packets transmitted, 4 packets received, 0% packet loss";
        assert!(said.contains(all), "{container} to {address}: {said}");
    }
    for address in FROM_ROUTER {
        let said = router.run(&format!("ping -c 2 {address}")).unwrap();
        assert!(
            said.contains(" 0% packet loss"),
            "router to {address}: {said}"
        );
    }
    for (container, address, hops) in TRACEROUTES {
        let said = run(&format!("docker exec {container} traceroute -n {address}")).unwrap();
        let way: Vec<_> = said
            .lines()
            .skip(1)
            .filter_map(|line| line.split_whitespace().nth(1))
            .collect();
        assert_eq!(way, *hops, "{container} to {address}: {said}");
    }
    neighbours(router);
}

/// Checks that the router's ARP table has all four addresses, each in its VLAN, with the containers' own MACs.
fn neighbours(router: &Netns) {
    let table = router.run("ip -4 neigh show nud all").unwrap();
    for (container, network, address, vid) in [
        ("container0", "macvlan10", "10.0.10.2", 10),
        ("container1", "macvlan10", "10.0.10.3", 10),
        ("container1", "macvlan20", "10.0.20.3", 20),
        ("container2", "macvlan20", "10.0.20.4", 20),
    ] {
        let format = format!("{{{{(index .NetworkSettings.Networks \"{network}\").MacAddress}}}}");
        let mac = run(&format!("docker inspect -f '{format}' {container}")).unwrap();
        let entry = format!("{address} dev {WIRE}.{vid} lladdr {}", mac.trim());
        assert!(table.contains(&entry), "no '{entry}' in: {table}");
    }
}

/// Attaches and starts the independent count at a moment without traffic. Returns the earlier counts: with host
/// access or the shortcut, vlanfast asks the wire for addresses that Docker has not assigned, such as link-local
/// ones.
fn begin(host: &Netns, router: &Netns, options: &[&str]) -> (Attached, Sniffer, [Sums; 2]) {
    for _ in 0..10 {
        let attached = Attached::start(host, "eth0", options).unwrap();
        thread::sleep(Duration::from_secs(2));
        let before = attached.counters().unwrap();
        let sniffer = Sniffer::start(&router.path(), WIRE).unwrap();
        let (rx, tx) = attached.counters().unwrap();
        if before == (rx.clone(), tx.clone()) {
            return (attached, sniffer, [rx, tx]);
        }
        sniffer.stop().unwrap();
        attached.stop().unwrap();
        thread::sleep(Duration::from_secs(2));
    }
    panic!("the network never was quiet");
}

/// Runs the tutorial with vlanfast attached and an independent count of the router's traffic; returns the number of
/// packets that took the shortcut.
fn attached(host: &Netns, router: &Netns, options: &[&str], kind: &str) -> u64 {
    let (attached, sniffer, [rx, tx]) = begin(host, router, options);
    assert_eq!(attached.kind("ingress").unwrap(), kind);
    tutorial(router);
    // The wire must be quiet again: the kernel probes a used neighbour 5 seconds later.
    thread::sleep(Duration::from_secs(9));
    let (mut at_router, mut from_router) = sniffer.stop().unwrap();
    for vid in [10, 20] {
        let sum = &from_router[&CounterKey::Vlan(vid)];
        assert!(sum.packets[0] > 20, "VLAN {vid} had traffic: {sum:?}");
        println!(
            "figure: tutorial by {kind}: VLAN {vid}: the router sent {:?} frames, {} bytes",
            sum.packets, sum.bytes
        );
    }
    for (sums, before) in [(&mut from_router, rx), (&mut at_router, tx)] {
        for (row, sum) in before {
            let all: &mut Sum = sums.entry(row).or_default();
            all.bytes += sum.bytes;
            for (all, packets) in all.packets.iter_mut().zip(sum.packets) {
                *all += packets;
            }
        }
    }
    settle(&attached, &from_router, &at_router);
    let shortcut = [10, 20].map(|vid| {
        let row = attached.row(vid).unwrap();
        row["verdicts"]["tx"]["shortcut"].as_u64().unwrap()
    });
    attached.stop().unwrap();
    shortcut.iter().sum()
}

#[test]
fn the_tutorial_gives_its_results_without_vlanfast_by_xdp_and_by_tc() {
    require!("tutorial", in_the_lab(), "needs the lab's virtual machine");
    let lab = Tutorial::start().unwrap();
    for (command, words) in LOOKS {
        let said = run(command).unwrap();
        for word in *words {
            assert!(said.contains(word), "`{command}` shows no '{word}': {said}");
        }
    }
    tutorial(&lab.router);
    let (host, router) = (&lab.host, &lab.router);
    let tc = match kernel_at_least(6, 6) {
        true => "tcx",
        false => "clsact",
    };
    let by_xdp = ["--ingress", "auto", "--shed", "mac"];
    assert_eq!(attached(host, router, &by_xdp, "xdp-native"), 0);
    let by_tc = ["--ingress", "tc", "--shed", "mac"];
    assert_eq!(attached(host, router, &by_tc, tc), 0);
    // A packet that a router has to answer is still answered there.
    let short = ["--host-access", "all", "--shortcut", "allow"];
    let allowed = ["--shortcut-allow", "10:20"];
    let all = [&by_xdp[..], &short, &allowed].concat();
    assert!(attached(host, router, &all, "xdp-native") > 30);
}

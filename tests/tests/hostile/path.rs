//! The packet path under attack: storms with forged sources, addresses that two stations claim, and MACs that change
//! under traffic.

use std::{
    thread,
    time::{Duration, Instant},
};

use aya::maps::{HashMap, MapData};
use vlanfast_common::{Claim, NeighborKey, Vid};
use vlanfast_tests::{
    fixtures::{
        one_vlan::{OneVlan, request, solicit},
        vlan_counts::VlanCounts,
    },
    net::{
        capture::Packets,
        messages::{ABSENT, ABSENT6, SENDER, arp, group, solicitation},
        namespace::Netns,
        packet::{BROADCAST, ROUTER_MAC, frame, tag},
        topology::{WIRE, Wire},
    },
    require,
    run::{observe::eventually, pins::pins, program::Attached},
};

const LIMIT: u64 = 20;
const STORM: u64 = 400;
const CONFLICTING: [u8; 4] = [10, 0, 10, 66];
const ELSEWHERE: [u8; 4] = [10, 0, 10, 77];

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Returns the address `fd00::1:<last>`.
const fn address6(last: u8) -> [u8; 16] {
    let mut address = ABSENT6;
    address[15] = last;
    address
}

/// Creates three containers: the third goes down, the first two claim one address, and the first has another address
/// on a device that does not belong to the trunk.
fn three_containers(wire: Wire, ingress: &'static str) -> OneVlan {
    let vlan = OneVlan::new(wire, 0, ingress, 3).unwrap();
    for container in [0, 1] {
        let line =
            "ip addr add 10.0.10.66/32 dev eth0 && ip addr add fd00::1:66/128 dev eth0 nodad";
        vlan.run(container, line).unwrap();
    }
    let line = "ip addr add 10.0.10.77/32 dev lo && echo 0 >/proc/sys/net/ipv6/conf/lo/disable_ipv6 && \
                ip addr add fd00::1:77/128 dev lo";
    vlan.run(0, line).unwrap();
    vlan.run(0, "ip maddr add 33:33:ff:01:00:77 dev eth0")
        .unwrap();
    vlan.run(2, "ip link set eth0 down").unwrap();
    vlan
}

/// Returns every kind of target except one that is present, for both protocols.
fn targets(vlan: &OneVlan) -> Vec<(&'static str, Vec<u8>)> {
    let down = vlan.endpoints[2];
    vec![
        ("absent", request(ABSENT)),
        ("absent, IPv6", solicit(ABSENT6)),
        ("down", request(down.address)),
        ("down, IPv6", solicit(down.address6)),
        ("conflicting", request(CONFLICTING)),
        ("conflicting, IPv6", solicit(address6(0x66))),
        ("elsewhere", request(ELSEWHERE)),
        ("elsewhere, IPv6", solicit(address6(0x77))),
    ]
}

/// Sends a storm of one frame; returns how many passed and how many were dropped.
fn rage(vlan: &OneVlan, frame: &[u8]) -> (u64, u64) {
    let of = || VlanCounts::of(&vlan.wire, 0).unwrap();
    let before = of();
    vlan.send(frame, STORM).unwrap();
    let start = Instant::now();
    loop {
        let now = of();
        let through = now.pass + now.steer - before.pass - before.steer;
        let dropped = now.storm - before.storm;
        if through + dropped >= STORM || start.elapsed().as_secs() > 10 {
            return (through, dropped);
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn a_storm_is_limited_from_any_source(ingress: &'static str) {
    let wire = Wire::veth().unwrap().keeping_tags().unwrap();
    let vlan = three_containers(wire, ingress);
    let group_has = |frame: &[u8]| {
        let ear = Packets::open(&vlan.container(0).path(), "eth0", true).unwrap();
        vlan.send(frame, STORM).unwrap();
        thread::sleep(Duration::from_millis(300));
        let heard = ear.incoming().unwrap();
        heard
            .iter()
            .filter(|heard| heard[12..] == frame[12..])
            .count() as u64
    };
    for (name, frame) in targets(&vlan) {
        assert_eq!(group_has(&frame), STORM, "{name}, without vlanfast");
    }
    let limit = LIMIT.to_string();
    let attached = vlan.attach(&["--storm-limit", &limit]).unwrap();
    eventually("conflict", &attached, |rows| {
        rows.iter().any(|row| row["conflict"] == true)
    });
    let sources = [
        ("foreign", ROUTER_MAC),
        ("a container's own", vlan.endpoints[1].mac),
        ("the host's own", vlan.host.mac),
    ];
    for (source, mac) in sources {
        let mut storms = targets(&vlan);
        let present = vlan.endpoints[1];
        if mac != ROUTER_MAC {
            storms.push(("present", request(present.address)));
            storms.push(("present, IPv6", solicit(present.address6)));
        }
        for (target, mut frame) in storms {
            frame[6..12].copy_from_slice(&mac);
            let start = Instant::now();
            let (through, dropped) = rage(&vlan, &frame);
            let most = LIMIT * (start.elapsed().as_millis() as u64 + 50) / 1000 + 2;
            let name = format!("{target}, source {source}: {through} went through, {dropped} not");
            assert!(through <= most, "{name}");
            assert!(through + dropped >= STORM, "{name}");
        }
    }
    for (name, frame) in targets(&vlan) {
        let heard = group_has(&frame);
        assert!(heard < STORM / 4, "{name}: a container heard {heard}");
    }
    // Meanwhile the endpoints can still be reached.
    let mut ears = vlan.listen().unwrap();
    for endpoint in &vlan.endpoints[..2] {
        vlan.send(&request(endpoint.address), 50).unwrap();
        ears.answers(endpoint, 50).unwrap();
        vlan.send(&solicit(endpoint.address6), 50).unwrap();
        ears.advertisements(endpoint, 50).unwrap();
    }
    attached.stop().unwrap();
}

#[test]
fn a_storm_is_limited_from_any_source_at_tc() {
    require!("storms", is_root(), "needs root");
    a_storm_is_limited_from_any_source("tc");
}

#[test]
fn a_storm_is_limited_from_any_source_at_xdp() {
    require!("storms", is_root(), "needs root");
    a_storm_is_limited_from_any_source("xdp-generic");
}

fn claim(trunk: &str, address: [u8; 4]) -> Option<[u8; 6]> {
    let map = aya::maps::Map::LruHashMap(MapData::from_pin(pins(trunk).join("CLAIMS")).unwrap());
    let map = HashMap::<_, NeighborKey, Claim>::try_from(map).unwrap();
    let claim = map.get(&NeighborKey::ipv4(Vid::UNTAGGED, address), 0);
    claim.ok().map(|claim| claim.mac)
}

/// A request whose sender claims the address of another container reaches that container, which can defend its
/// address (RFC 5227 clause 2.4).
#[test]
fn steering_hides_no_conflict() {
    require!("conflicts", is_root(), "needs root");
    for ingress in ["tc", "xdp-generic"] {
        let wire = Wire::veth().unwrap().keeping_tags().unwrap();
        let vlan = OneVlan::new(wire, 0, ingress, 2).unwrap();
        let (first, second) = (vlan.endpoints[0], vlan.endpoints[1]);
        let stolen = frame(BROADCAST, &arp(1, first.address, second.address), 60);
        let stolen6 = frame(
            group(second.address6).1,
            &solicitation(first.address6, second.address6),
            60,
        );
        let heard = || {
            let ears = [0, 1]
                .map(|number| Packets::open(&vlan.container(number).path(), "eth0", true).unwrap());
            vlan.send(&stolen, 3).unwrap();
            vlan.send(&stolen6, 3).unwrap();
            thread::sleep(Duration::from_millis(300));
            ears.map(|ear| {
                let frames = ear.incoming().unwrap();
                let of = |sent: &[u8]| frames.iter().filter(|it| it[12..] == sent[12..]).count();
                [of(&stolen), of(&stolen6)]
            })
        };
        assert_eq!(heard(), [[3, 3]; 2], "without vlanfast");
        let attached = vlan.attach(&[]).unwrap();
        assert_eq!(heard(), [[3, 3]; 2], "{ingress}");
        // A request that contradicts no endpoint reaches only its target.
        let mut ears = vlan.listen().unwrap();
        vlan.send(&frame(BROADCAST, &arp(1, SENDER, second.address), 60), 3)
            .unwrap();
        ears.answers(&second, 3).unwrap();
        attached.stop().unwrap();
    }
}

/// A host with an address on the trunk, and a container on it.
struct Pair {
    wire: Wire,
    container: Netns,
}

const HOST: &str = "10.9.0.250";
const HOST6: &str = "fd00:9::250";

impl Pair {
    fn new() -> Self {
        let wire = Wire::veth().unwrap();
        let container = Netns::new().unwrap();
        let trunk = &wire.trunk;
        let addressed = |device: &str, number: &str| {
            format!(
                "echo 0 >/proc/sys/net/ipv6/conf/{device}/disable_ipv6; ip addr add 10.9.0.{number}/24 dev {device} \
                 && ip addr add fd00:9::{number}/64 dev {device} nodad && ip link set {device} up && \
                 echo 1 >/proc/sys/net/ipv4/conf/{device}/arp_notify && \
                 echo 1 >/proc/sys/net/ipv6/conf/{device}/ndisc_notify"
            )
        };
        wire.host.run(&addressed(trunk, "250")).unwrap();
        let line = format!(
            "ip link add link {trunk} name mv0 type macvlan mode bridge && ip link set mv0 netns {}",
            container.name
        );
        wire.host.run(&line).unwrap();
        container.run(&addressed("mv0", "2")).unwrap();
        Self { wire, container }
    }

    fn attach(&self) -> Attached {
        let arguments = [
            "--host-access",
            "all",
            "--metrics",
            "off",
            "--docker",
            "off",
        ];
        let attached = Attached::start(&self.wire.host, &self.wire.trunk, &arguments).unwrap();
        eventually("the container", &attached, |rows| {
            rows.iter().any(|row| row["device"] == "mv0")
        });
        attached
    }

    /// Checks whether the container answers the host.
    fn is_pinged(&self) -> bool {
        let line = "ping -q -n -c 1 -W 1 10.9.0.2 >/dev/null && echo yes || echo no";
        self.wire.host.run(line).unwrap().trim() == "yes"
    }

    fn pings(&self, address: &str) -> bool {
        let line = format!("ping -q -n -c 1 -W 1 {address} >/dev/null && echo yes || echo no");
        self.container.run(&line).unwrap().trim() == "yes"
    }
}

/// A request is delivered locally and goes to the wire too: a station there that has the address answers, and its
/// answer is noticed at once.
#[test]
fn an_address_that_the_wire_claims_belongs_to_the_wire() {
    require!("claims", is_root(), "needs root");
    let pair = Pair::new();
    assert!(!pair.is_pinged(), "without vlanfast");
    let container = [10, 9, 0, 2];
    let router = Packets::open(&pair.wire.router.path(), WIRE, true).unwrap();
    let asks = |frame: &[u8]| frame[12..14] == [8, 6] && frame[38..42] == container;
    for claiming in [
        frame(BROADCAST, &arp(1, container, container), 60),
        frame(BROADCAST, &arp(1, container, [10, 9, 0, 77]), 60),
        // This reply is sent by unicast, as the answer to a request.
        frame(
            pair.wire.host.mac(&pair.wire.trunk).unwrap(),
            &arp(2, container, [10, 9, 0, 250]),
            60,
        ),
    ] {
        let attached = pair.attach();
        pair.wire.host.run("ip neigh flush all").unwrap();
        router.incoming().unwrap();
        assert!(pair.is_pinged());
        let heard = router.incoming().unwrap();
        assert!(heard.iter().any(|frame| asks(frame)), "the wire is asked");
        assert_eq!(claim(&pair.wire.trunk, container), None);
        router.send(&claiming).unwrap();
        pair.wire.host.run("ip neigh flush all").unwrap();
        assert!(!pair.is_pinged(), "what the wire has is not taken past it");
        assert_eq!(claim(&pair.wire.trunk, container), Some(ROUTER_MAC));
        attached.stop().unwrap();
    }
}

/// Pings while something happens; returns how many requests were answered, and how many were sent.
fn under_pings(pair: &Pair, address: &str, what: impl FnOnce()) -> (u32, u32) {
    let line = format!("ping -q -n -c 80 -i 0.05 -W 1 {address} || true");
    let said = thread::scope(|scope| {
        let pings = scope.spawn(|| pair.container.run(&line).unwrap());
        thread::sleep(Duration::from_millis(1500));
        what();
        pings.join().unwrap()
    });
    let summary = said
        .lines()
        .find(|line| line.contains("transmitted"))
        .expect("a summary");
    let mut of_summary = summary.split(' ').filter_map(|word| word.parse().ok());
    (of_summary.next().unwrap(), of_summary.next().unwrap())
}

/// An announcement is delivered at the moment at which a MAC changes, whether or not the tables know the new MAC.
#[test]
fn a_mac_that_changes_costs_a_few_packets() {
    require!("announcements", is_root(), "needs root");
    for address in [HOST, HOST6] {
        let pair = Pair::new();
        let attached = pair.attach();
        assert!(pair.pings(address));
        let trunk = &pair.wire.trunk;
        for (netns, device, mac) in [
            (&pair.wire.host, trunk.as_str(), "02:00:00:00:ee:05"),
            (&pair.container, "mv0", "02:00:00:00:ee:06"),
        ] {
            let (sent, answered) = under_pings(&pair, address, || {
                netns
                    .run(&format!("ip link set {device} address {mac}"))
                    .unwrap();
            });
            println!(
                "figure: {answered} of {sent} pings to {address} answered while {device} had a new MAC"
            );
            assert!(
                sent == 80 && answered + 12 >= sent,
                "{address}, {device}: {answered} of {sent}"
            );
        }
        attached.stop().unwrap();
    }
}

/// A station that sends on a VLAN without known endpoints may receive the replies.
#[test]
fn a_vlan_with_a_newcomer_is_not_shed() {
    require!("newcomers", is_root(), "needs root");
    let wire = Wire::veth().unwrap();
    let vlan = OneVlan::new(wire, 0, "tc", 1).unwrap();
    let attached = vlan.attach(&["--shed", "vlan"]).unwrap();
    let on = |vid: u16| {
        frame(
            [2, 0, 0, 0, 0, 0x0a],
            &[&tag(0, vid)[..], &[8, 0, 0x45]].concat(),
            64,
        )
    };
    let drops = |vid| VlanCounts::of(&vlan.wire, vid).unwrap().shed_vlan;
    let come = |vid| {
        let before = drops(vid);
        vlan.send(&on(vid), 10).unwrap();
        thread::sleep(Duration::from_millis(200));
        drops(vid) - before
    };
    assert_eq!(come(99), 10);
    let newcomer = Packets::open(&vlan.wire.host.path(), &vlan.wire.trunk, false).unwrap();
    newcomer.send(&on(99)).unwrap();
    // Frames of another VLAN are still dropped, as long as nothing else changes.
    let start = Instant::now();
    while come(98) != 10 {
        assert!(start.elapsed().as_secs() < 3, "too late to tell");
    }
    assert_eq!(come(99), 0, "the newcomer may receive it");
    assert_eq!(come(98), 10, "another VLAN");
    thread::sleep(Duration::from_secs(5));
    assert_eq!(come(99), 10, "no endpoint has become known");
    let mut group_sender = on(98);
    group_sender[6] |= 1;
    newcomer.send(&group_sender).unwrap();
    assert_eq!(come(98), 10, "a group sends nothing");
    attached.stop().unwrap();
}

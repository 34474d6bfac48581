//! A switching loop on the wire: group frames circle in it, and arrive again with every turn.

use std::{
    fmt, fs, thread,
    time::{Duration, Instant},
};

use vlanfast_tests::{
    fixtures::{
        one_vlan::{OneVlan, request, solicit},
        vlan_counts::VlanCounts,
    },
    in_the_lab,
    net::{
        capture::Packets,
        messages::{ABSENT, ABSENT6, SENDER, SENDER6, arp, group, solicitation},
        packet::{BROADCAST, ROUTER_MAC, frame},
        topology::{WIRE, Wire},
    },
};

const CONTAINERS: u8 = 64;
const VID: u16 = 10;
/// The duration of a loop in seconds of the guest's clock. The loop fills the guest's CPU, so it takes several times
/// as long on the host.
const LASTS: u64 = 5;
const PINGS: u64 = LASTS * 10;
/// The rate of requests per second for containers; half of them are ARP requests.
const ASKED: u64 = 100;

/// Connects both ends of a cable to the switch that has VLAN 10 of the trunk. Each direction holds 100 frames for 10
/// ms, which limits the loop to 20,000 frames per second: one slow CPU runs both the wire and the host here.
fn close(wire: &Wire) {
    wire.router
        .run(&format!(
            "ip link add sw type bridge forward_delay 0 mcast_snooping 0 && ip link set sw up && \
             ip link add p0 type veth peer name p1 && \
             for port in p0 p1; do \
                 tc qdisc add dev $port root netem delay 10ms limit 100 && \
                 ip link set $port master sw && ip link set $port up || exit; \
             done; \
             ip link set {WIRE}.{VID} master sw"
        ))
        .unwrap();
}

fn open(wire: &Wire) {
    wire.router.run("ip link del p0 && ip link del sw").unwrap();
}

/// Sends the frames that begin to circle: requests of others and of a container itself for absent hosts, mDNS and
/// DHCP.
fn feed(vlan: &OneVlan) {
    let switch = Packets::open(&vlan.wire.router.path(), "sw", false).unwrap();
    let own = Packets::open(&vlan.container(0).path(), "eth0", false).unwrap();
    let udp = [0x08, 0, 0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17];
    let mdns = frame([1, 0, 0x5e, 0, 0, 0xfb], &udp, 200);
    let dhcp = frame(BROADCAST, &udp, 300);
    let absent = frame(BROADCAST, &arp(1, SENDER, ABSENT), 60);
    let absent6 = frame(group(ABSENT6).1, &solicitation(SENDER6, ABSENT6), 60);
    for _ in 0..50 {
        for kind in [&absent, &mdns, &absent6, &dhcp] {
            let mut bytes = kind.clone();
            // The sender is another host on the wire.
            bytes[6..12].copy_from_slice(&[2, 0, 0, 0, 5, 5]);
            switch.send(&bytes).unwrap();
        }
        let mut bytes = absent.clone();
        bytes[6..12].copy_from_slice(&vlan.endpoints[0].mac);
        own.send(&bytes).unwrap();
    }
}

struct Outcome {
    /// The numbers of ARP requests and of solicitations sent, and of their answers.
    asked: u64,
    answered: [u64; 2],
    /// How many of [`PINGS`] between two containers were answered.
    pings: u64,
    /// The rate of frames on the wire per second.
    rate: u64,
    /// The idle time of the CPU in seconds.
    idle: f64,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [arp, nd] = self.answered;
        write!(
            f,
            "{arp} ARP requests and {nd} solicitations of {} each answered, {} of {PINGS} pings, amid {} frames/s; \
             the CPU idle for {:.1} of {LASTS} s",
            self.asked, self.pings, self.rate, self.idle
        )
    }
}

/// Returns the idle time so far in seconds, over all CPUs (proc(5)).
fn idle() -> f64 {
    let uptime = fs::read_to_string("/proc/uptime").unwrap();
    uptime.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Keeps a loop closed for [`LASTS`] seconds, sends requests from the wire for every container, and pings between two
/// containers.
fn endure(vlan: &OneVlan) -> Outcome {
    let router = &vlan.wire.router;
    let device = format!("{WIRE}.{VID}");
    let ear = Packets::open(&router.path(), &device, true)
        .and_then(Packets::without_outgoing)
        .unwrap();
    close(&vlan.wire);
    feed(vlan);
    let came = || Wire::statistic(router, &device, "tx_packets").unwrap();
    let (start, before, idle_before) = (Instant::now(), came(), idle());
    let line = format!("ping -q -n -i 0.1 -c {PINGS} -W 2 10.0.10.3 || true");
    let (asked, said) = thread::scope(|scope| {
        let pings = scope.spawn(|| vlan.run(0, &line).unwrap());
        let mut asked = 0;
        while start.elapsed() < Duration::from_secs(LASTS) {
            let endpoint = vlan.endpoints[asked as usize % vlan.endpoints.len()];
            vlan.send(&request(endpoint.address), 1).unwrap();
            vlan.send(&solicit(endpoint.address6), 1).unwrap();
            asked += 1;
            thread::sleep(Duration::from_millis(2000 / ASKED));
        }
        (asked, pings.join().unwrap())
    });
    let rate = (came() - before) as f64 / start.elapsed().as_secs_f64();
    let idle = idle() - idle_before;
    open(&vlan.wire);
    thread::sleep(Duration::from_secs(2));
    let heard = ear.incoming().unwrap();
    let count = |is_answer: &dyn Fn(&[u8]) -> bool| {
        let answers = heard
            .iter()
            .filter(|it| it[..6] == ROUTER_MAC && is_answer(it));
        answers.count() as u64
    };
    let pings = said
        .split(' ')
        .zip(said.split(' ').skip(1))
        .find(|(_, word)| word.starts_with("received"))
        .and_then(|(number, _)| number.parse().ok())
        .expect("ping counts");
    Outcome {
        asked,
        answered: [
            count(&|it| it[12..14] == [8, 6] && it[20..22] == [0, 2]),
            count(&|it| it[12..14] == [0x86, 0xdd] && it[20] == 58 && it[54] == 136),
        ],
        pings,
        rate: rate as u64,
        idle,
    }
}

/// Every limit has its default.
#[test]
fn containers_live_through_a_loop() {
    in_the_lab!("a loop");
    let vlan = OneVlan::new(Wire::veth().unwrap(), VID, "tc", CONTAINERS).unwrap();
    let without = endure(&vlan);
    println!("figure: a loop, {CONTAINERS} containers, without vlanfast: {without}");
    let attached = vlan.attach(&[]).unwrap();
    let with = endure(&vlan);
    println!("figure: a loop, {CONTAINERS} containers, with vlanfast: {with}");
    for (protocol, answered) in ["ARP", "ND"].iter().zip(with.answered) {
        assert!(100 * answered >= 99 * with.asked, "{protocol}: {with}");
    }
    assert_eq!(with.pings, PINGS, "{with}");
    assert!(
        with.rate > 10_000 && without.rate > 10_000,
        "{with}, {without}"
    );
    let drops = VlanCounts::of(&vlan.wire, VID).unwrap().storm;
    assert!(drops > with.rate, "{drops} were dropped");
    attached.stop().unwrap();
}

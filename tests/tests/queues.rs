//! Level `vm`, only with `--queues`: native XDP on a NIC whose driver spreads incoming frames over several queues,
//! and which receives merged packets.

use vlanfast_tests::{
    fixtures::{one_vlan::OneVlan, vlan_counts::VlanCounts},
    in_the_lab,
    net::{
        bulk::{BulkConnection, MEGABYTE},
        messages::{NOBODY, udp},
        namespace::Netns,
        packet::frame,
        topology::{WIRE, Wire},
    },
    run::program::Attached,
};

/// The number of frames of each kind; each has another port, by which they are spread.
const FRAMES: u16 = 400;

/// Returns the driver's count of frames that XDP has seen, by queue.
fn seen_by_xdp(wire: &Wire) -> Vec<u64> {
    let text = wire
        .host
        .run(&format!("ethtool -S {}", wire.trunk))
        .unwrap();
    let counts = text.lines().filter_map(|line| {
        let (name, count) = line.trim().split_once(": ")?;
        // The counter is `rx_queue_0_xdp_packets`, or in later kernels `rx0_xdp_packets`, beside a sum without a
        // number.
        let number = name.strip_prefix("rx")?.strip_suffix("_xdp_packets")?;
        let number = number.strip_prefix("_queue_").unwrap_or(number);
        number.parse::<u32>().ok().map(|_| count.parse().unwrap())
    });
    counts.collect()
}

#[test]
fn frames_of_every_queue_are_decided_and_counted() {
    in_the_lab!("queues");
    let wire = Wire::virtio().unwrap();
    for (netns, device) in [(&wire.host, wire.trunk.as_str()), (&wire.router, WIRE)] {
        netns
            .run(&format!("ethtool -L {device} combined 2"))
            .unwrap();
    }
    let before = seen_by_xdp(&wire);
    assert_eq!(before.len(), 2);
    let vlan = OneVlan::new(wire, 10, "auto", 2).unwrap();
    let attached = vlan.attach(&["--shed", "mac"]).unwrap();
    let endpoint = vlan.endpoints[0];
    for mac in [endpoint.mac, NOBODY] {
        for port in 0..FRAMES {
            let [high, low] = (1024 + port).to_be_bytes();
            let rest = udp(0x45, 0, endpoint.address, [high, low, 0, 9], &[]);
            vlan.send(&frame(mac, &rest, 60), 1).unwrap();
        }
    }
    let expected = VlanCounts {
        pass: FRAMES.into(),
        shed_mac: FRAMES.into(),
        ..VlanCounts::default()
    };
    vlan.counted(expected).unwrap();
    let seen = seen_by_xdp(&vlan.wire).into_iter().zip(before);
    let seen: Vec<_> = seen.map(|(now, before)| now - before).collect();
    println!("figure: by queue: {seen:?}");
    assert!(seen.iter().all(|&frames| frames > u64::from(FRAMES) / 4));
    attached.stop().unwrap();
}

/// The wire with a container on VLAN 10, and a bulk sender at the other end.
struct Bulk {
    wire: Wire,
    container: Netns,
}

impl Bulk {
    fn new() -> Self {
        let wire = Wire::virtio().unwrap();
        wire.vlan(10).unwrap();
        let address = format!("ip addr add 10.0.10.1/24 dev {WIRE}.10");
        wire.router.run(&address).unwrap();
        let container = wire.container(10, "10.0.10.2").unwrap();
        Self { wire, container }
    }

    /// Returns in how many buffers a megabyte reaches the container.
    fn buffers(&self) -> u64 {
        const ALL: usize = 20;
        let (wire, address) = (&self.wire, [10, 0, 10, 2].into());
        let connection = BulkConnection::open(&wire.router, &self.container, address).unwrap();
        // The first transfer opens the TCP window.
        connection.transfer(5 * MEGABYTE).unwrap();
        let received = || Wire::statistic(&wire.host, &wire.trunk, "rx_packets").unwrap();
        let before = received();
        connection.transfer(ALL * MEGABYTE).unwrap();
        (received() - before) / ALL as u64
    }

    fn attach(&self, more: &[&str]) -> Attached {
        let arguments = [&["--docker", "off", "--metrics", METRICS][..], more].concat();
        Attached::start(&self.wire.host, &self.wire.trunk, &arguments).unwrap()
    }

    /// Returns the metric for ingress.
    fn reason(&self) -> String {
        let line =
            format!("wget -qO- http://{METRICS}/metrics | grep '^vlanfast_attached.*ingress'");
        self.wire.host.run(&line).unwrap()
    }
}

const METRICS: &str = "127.0.0.1:9441";

#[test]
fn auto_gives_up_merging_by_the_nic_only_for_shedding() {
    in_the_lab!("merging");
    let bulk = Bulk::new();
    let (host, trunk) = (&bulk.wire.host, &bulk.wire.trunk);
    let features = host.run(&format!("ethtool -k {trunk}")).unwrap();
    assert!(features.contains("rx-gro-hw: on"), "{features}");
    let without = bulk.buffers();
    println!("figure: buffers/MB without vlanfast: {without}");
    assert!(without < 60, "{without}");

    let by_tc = |attached: &Attached| {
        let ingress = &attached.status().unwrap()["ingress"];
        assert_eq!(ingress["chosen"], "tc");
        let reason = ingress["reason"].as_str().unwrap();
        assert!(reason.contains("it would cost rx-gro-hw"), "{reason}");
        let metric = bulk.reason();
        assert!(metric.contains(r#"reason="costs-offloads""#), "{metric}");
        let with = bulk.buffers();
        println!("figure: buffers/MB by auto: {with}");
        assert!(with < without * 3 / 2, "{with} and {without} without");
    };
    let attached = bulk.attach(&[]);
    by_tc(&attached);
    attached.kill().unwrap();

    // Shedding and a request for XDP both give up merging, and `status` reports it.
    for more in [["--shed", "mac"], ["--ingress", "xdp"]] {
        let attached = bulk.attach(&more);
        let status = attached.status().unwrap();
        assert_eq!(status["ingress"]["chosen"], "xdp", "{more:?}");
        let warnings = status["warnings"].to_string();
        assert!(warnings.contains("XDP keeps"), "{warnings}");
        assert!(warnings.contains("rx-gro-hw"), "{warnings}");
        let with = bulk.buffers();
        println!("figure: buffers/MB with {more:?}: {with}");
        assert!(with > 500, "{with}");
        attached.kill().unwrap();
    }

    // The present attachment does not influence the choice: the next process chooses as the first did.
    let attached = bulk.attach(&[]);
    by_tc(&attached);
    attached.stop().unwrap();
    assert!(bulk.buffers() < without * 3 / 2);
}

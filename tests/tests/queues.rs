//! Level `vm`, by `--queues` alone: native XDP on a NIC whose driver spreads what comes in over several queues.

use vlanfast_tests::{
    in_the_lab,
    messages::{NOBODY, udp},
    packet::frame,
    scene::{Decisions, Scene},
    topology::{WIRE, Wire},
};

/// Of a kind; each from another port, by which they are spread.
const FRAMES: u16 = 400;

/// What the driver counts of frames that XDP has seen, by queue.
fn seen_by_xdp(wire: &Wire) -> Vec<u64> {
    let text = wire
        .host
        .run(&format!("ethtool -S {}", wire.trunk))
        .unwrap();
    let counts = text.lines().filter_map(|line| {
        let (name, count) = line.trim().split_once(": ")?;
        // `rx_queue_0_xdp_packets`, or of later kernels `rx0_xdp_packets`, beside a sum without number.
        let number = name.strip_prefix("rx")?.strip_suffix("_xdp_packets")?;
        let number = number.strip_prefix("_queue_").unwrap_or(number);
        number.parse::<u32>().ok().map(|_| count.parse().unwrap())
    });
    counts.collect()
}

#[test]
fn what_comes_in_by_any_queue_is_decided_and_counted() {
    in_the_lab!("queues");
    let wire = Wire::virtio().unwrap();
    for (netns, device) in [(&wire.host, wire.trunk.as_str()), (&wire.router, WIRE)] {
        netns
            .run(&format!("ethtool -L {device} combined 2"))
            .unwrap();
    }
    assert_eq!(seen_by_xdp(&wire).len(), 2);
    let scene = Scene::new(wire, 10, "auto", 2).unwrap();
    let attached = scene.attach(&["--shed", "mac"]).unwrap();
    let taker = scene.takers[0];
    for mac in [taker.mac, NOBODY] {
        for port in 0..FRAMES {
            let [high, low] = (1024 + port).to_be_bytes();
            let rest = udp(0x45, 0, taker.address, [high, low, 0, 9], &[]);
            scene.send(&frame(mac, &rest, 60), 1).unwrap();
        }
    }
    let expected = Decisions {
        pass: FRAMES.into(),
        shed_mac: FRAMES.into(),
        ..Decisions::default()
    };
    scene.counted(expected).unwrap();
    let seen = seen_by_xdp(&scene.wire);
    println!("figure: by queue: {seen:?}");
    assert!(seen.iter().all(|&frames| frames > u64::from(FRAMES) / 4));
    attached.stop().unwrap();
}

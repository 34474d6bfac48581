//! Checks of a trunk that run on more than one kind of device.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use crate::{
    fixtures::corpus::{CorpusFrame, corpus},
    net::{
        capture::{Packets, Sniffer},
        namespace::Netns,
        tally::{Sums, add},
        topology::{WIRE, Wire},
        transfer::transfer,
    },
    run::program::Attached,
};

/// In [`bulk`], the address of the end on the trunk, and that of the router.
pub const HOST_ADDRESS: &str = "192.0.2.1";
pub const ROUTER_ADDRESS: &str = "192.0.2.2";

/// Waits for the counters to reach the expected values, and then for late frames that must not arrive.
pub fn settle(attached: &Attached, rx: &Sums, tx: &Sums) {
    let read = || {
        attached
            .counters()
            .expect("counters can be read while attached")
    };
    let start = Instant::now();
    loop {
        let counted = read();
        if (&counted.0, &counted.1) == (rx, tx) {
            break;
        }
        if start.elapsed() > Duration::from_secs(10) {
            assert_eq!(counted.0, *rx, "received (left: vlanfast)");
            assert_eq!(counted.1, *tx, "sent (left: vlanfast)");
        }
        thread::sleep(Duration::from_millis(50));
    }
    thread::sleep(Duration::from_millis(200));
    let counted = read();
    assert_eq!(
        (&counted.0, &counted.1),
        (rx, tx),
        "more was counted than was sent"
    );
}

/// Sends every frame of the corpus that a device accepts, each a different number of times, from the wire to the
/// trunk and back.
pub fn corpus_both_ways(wire: &Wire, ingress: &str, kind: &str) -> Result<()> {
    let attached = Attached::start(&wire.host, &wire.trunk, &["--ingress", ingress])?;
    ensure!(attached.kind("ingress")? == kind, "{}", attached.status()?);
    let (mut rx, mut tx) = (Sums::new(), Sums::new());
    let router = Packets::open(&wire.router.path(), WIRE, false)?;
    let host = Packets::open(&wire.host.path(), &wire.trunk, false)?;
    // The kernel drops frames that end within or directly behind a tag before TC sees them.
    let whole = |named: &&CorpusFrame| !named.name.starts_with("ends");
    for (number, named) in corpus().iter().filter(whole).enumerate() {
        let (there, back) = (number as u64 + 1, 2 * number as u64 + 1);
        for _ in 0..there {
            router.send(&named.bytes)?;
        }
        for _ in 0..back {
            host.send(&named.bytes)?;
        }
        add(&mut rx, named.row, named.cast, there, named.bytes.len());
        add(&mut tx, named.row, named.cast, back, named.bytes.len());
    }
    settle(&attached, &rx, &tx);
    attached.stop()
}

/// Runs a bulk transfer each way between the router and `end`, which is on the trunk, and compares the counters
/// with an independent count at the router. There one frame is one wire packet: the router neither merges nor splits,
/// and the trunk splits its own buffers behind our hook.
pub fn bulk(wire: &Wire, end: &Netns, ingress: &str) -> Result<()> {
    wire.router
        .run(&format!("ethtool -K {WIRE} tso off gso off gro off"))?;
    wire.host
        .run(&format!("ethtool -K {} tso off", wire.trunk))?;
    let attached = Attached::start(&wire.host, &wire.trunk, &["--ingress", ingress])?;
    let sniffer = Sniffer::start(&wire.router.path(), WIRE)?;
    transfer(&wire.router, end, HOST_ADDRESS)?;
    transfer(end, &wire.router, ROUTER_ADDRESS)?;
    // The last acknowledgements may still be under way.
    thread::sleep(Duration::from_millis(1000));
    let (at_router, from_router) = sniffer.stop()?;
    for sums in [&at_router, &from_router] {
        let packets: u64 = sums.values().flat_map(|sum| sum.packets).sum();
        ensure!(
            packets as usize > crate::net::transfer::BULK / 1500,
            "that was no bulk: {packets} packets"
        );
    }
    settle(&attached, &from_router, &at_router);
    attached.stop()
}

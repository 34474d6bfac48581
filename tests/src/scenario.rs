//! What is done to a trunk on more than one kind of device.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{setsockopt, sockopt::RcvBuf};

use crate::{
    capture::{Packets, Sniffer, in_netns},
    packet::{Named, Sums, add, corpus},
    program::Attached,
    topology::{Netns, WIRE, Wire},
};

/// The address of whoever is behind the trunk in [`bulk`], and the router's.
pub const HOST_ADDRESS: &str = "192.0.2.1";
pub const ROUTER_ADDRESS: &str = "192.0.2.2";

/// Bytes of payload in a bulk transfer, each way.
const BULK: usize = 4 << 20;

/// Bytes of the receiver's buffer, which the kernel doubles for its own part: what is on its way at
/// once has to fit the 256 frames that a veth with XDP takes, or it drops what the sender's egress has
/// counted.
const WINDOW: usize = 64 << 10;

/// Waits for the counters to reach what is expected, and then for what should not come.
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

/// Sends every frame of the corpus that a device takes, a different number of times each, from the
/// wire to the trunk and back.
pub fn corpus_both_ways(wire: &Wire, ingress: &str, kind: &str) -> Result<()> {
    let attached = Attached::start(&wire.host, &wire.trunk, &["--ingress", ingress])?;
    ensure!(attached.kind("ingress")? == kind, "{}", attached.status()?);
    let (mut rx, mut tx) = (Sums::new(), Sums::new());
    let router = Packets::open(&wire.router.path(), WIRE, false)?;
    let host = Packets::open(&wire.host.path(), &wire.trunk, false)?;
    // The kernel itself drops what ends within or behind a tag, before TC sees it.
    let whole = |named: &&Named| !named.name.starts_with("ends");
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

/// A bulk transfer each way between the router and `end`, which is behind the trunk, against an
/// independent count at the router, where one frame is one wire packet: it neither merges nor splits,
/// and the trunk splits what it sends behind our hook.
pub fn bulk(wire: &Wire, end: &Netns, ingress: &str) -> Result<()> {
    wire.router
        .run(&format!("ethtool -K {WIRE} tso off gso off gro off"))?;
    wire.host
        .run(&format!("ethtool -K {} tso off", wire.trunk))?;
    let attached = Attached::start(&wire.host, &wire.trunk, &["--ingress", ingress])?;
    let sniffer = Sniffer::start(&wire.router.path(), WIRE)?;
    transfer(&wire.router, end, HOST_ADDRESS)?;
    transfer(end, &wire.router, ROUTER_ADDRESS)?;
    // The last acknowledgements.
    thread::sleep(Duration::from_millis(1000));
    let (at_router, from_router) = sniffer.stop()?;
    for sums in [&at_router, &from_router] {
        let packets: u64 = sums.values().flat_map(|sum| sum.packets).sum();
        ensure!(
            packets as usize > BULK / 1500,
            "that was no bulk: {packets} packets"
        );
    }
    settle(&attached, &from_router, &at_router);
    attached.stop()
}

/// Sends [`BULK`] bytes over TCP.
pub fn transfer(from: &Netns, to: &Netns, address: &'static str) -> Result<()> {
    transfer_of(BULK, from, to, address)
}

/// Sends so many bytes over TCP, and looks at each that arrives.
pub fn transfer_of(length: usize, from: &Netns, to: &Netns, address: &'static str) -> Result<()> {
    let listener = in_netns(&to.path(), move || {
        let listener = TcpListener::bind((address, 5001))?;
        setsockopt(&listener, RcvBuf, &WINDOW)?;
        Ok(listener)
    })?;
    let reader = thread::spawn(move || -> Result<Vec<u8>> {
        let mut read = vec![];
        listener.accept()?.0.read_to_end(&mut read)?;
        Ok(read)
    });
    let mut stream = in_netns(&from.path(), move || {
        Ok(TcpStream::connect((address, 5001))?)
    })?;
    let sent = content(0, length);
    stream.write_all(&sent)?;
    drop(stream);
    let read = reader
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    ensure!(
        read.len() == length,
        "{} of {length} bytes arrived",
        read.len()
    );
    ensure!(read == sent, "what arrived is not what was sent");
    Ok(())
}

/// Sends UDP datagrams that fit a packet and that need fragments: each arrives as it was, and once.
pub fn datagrams(from: &Netns, to: &Netns, address: &'static str) -> Result<()> {
    let bind = |netns: &Netns, address: &'static str| {
        in_netns(&netns.path(), move || Ok(UdpSocket::bind((address, 0))?))
    };
    let receiver = bind(to, address)?;
    let sender = bind(
        from,
        if address.contains(':') {
            "::"
        } else {
            "0.0.0.0"
        },
    )?;
    let there = receiver.local_addr()?;
    let mut buffer = vec![0; 1 << 16];
    // The largest that fits 1500 bytes in either protocol, and what is just over.
    let sizes = [0, 1, 100, 1452, 1453, 1472, 1473, 9000, 40_000];
    receiver.set_read_timeout(Some(Duration::from_secs(5)))?;
    for (number, size) in sizes.into_iter().enumerate() {
        let sent = content(number, size);
        sender.send_to(&sent, there)?;
        let length = receiver
            .recv(&mut buffer)
            .with_context(|| format!("{size} bytes to {address}"))?;
        // Also not the one before, once more.
        ensure!(buffer[..length] == sent, "{size} bytes to {address}");
    }
    receiver.set_read_timeout(Some(Duration::from_millis(200)))?;
    ensure!(receiver.recv(&mut buffer).is_err(), "a datagram arrived twice");
    Ok(())
}

/// Bytes that neither repeat with a packet's length nor are another number's.
fn content(number: usize, length: usize) -> Vec<u8> {
    let byte = |place: usize| (place % 251 + number) as u8;
    (0..length).map(byte).collect()
}

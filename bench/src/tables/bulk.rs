//! TCP in bulk, where one buffer stands for many packets: GRO merges what comes in, and what goes out
//! is left to the NIC to split.

use std::{
    io::{ErrorKind, Read, Write},
    net::Ipv4Addr,
};

use anyhow::{Context, Result, bail};
use vlanfast_tests::net::{
    bulk::{BulkConnection, MEGABYTE},
    namespace::Netns,
    topology::WIRE,
};

use crate::{
    bench::Bench,
    contender::Contender,
    frame::{CONTAINER, ROUTER},
    measure::Effort,
    report,
};

const TABLE: &str = "tcp-bulk";
/// Megabytes of a round.
const ROUND: u32 = 4;

pub fn bulk(bench: &mut Bench) -> Result<()> {
    // On a veth, native XDP turns every skb of the peer into frames of its own: no NIC does that.
    for contender in bench.rows(&Contender::BUT_XDP) {
        let row = contender.name();
        report::step(&format!("{TABLE}: {row}"));
        let network = contender
            .build()
            .with_context(|| format!("failed to set up: {row}"))?;
        network.router()?;
        // Packets on the wire, as from any NIC; the trunk merges them again.
        network
            .wire
            .router
            .run(&format!("ethtool -K {WIRE} tso off"))?;
        let (router, container) = (&network.wire.router, &network.container);
        for (column, from, to, address) in [
            ("into the container", router, container, CONTAINER),
            ("out of the container", container, router, ROUTER),
        ] {
            let cost = median(bench.effort, from, to, address.into())
                .with_context(|| format!("failed to send {column}"))?;
            report::figure(TABLE, row, column, cost);
        }
    }
    Ok(())
}

/// Instructions per megabyte, by three connections: one in some dozens is dearer by a few percent, throughout.
pub fn median(effort: Effort, from: &Netns, to: &Netns, address: Ipv4Addr) -> Result<f64> {
    let mut costs = [0.0; 3];
    for cost in &mut costs {
        *cost = transfer(effort.less(), from, to, address)?;
    }
    costs.sort_by(f64::total_cmp);
    Ok(costs[1])
}

/// Instructions per megabyte of one connection. Sender and receiver take turns on one thread, so that what runs when does
/// not depend on a scheduler.
fn transfer(effort: Effort, from: &Netns, to: &Netns, address: Ipv4Addr) -> Result<f64> {
    let BulkConnection {
        mut sender,
        mut receiver,
    } = BulkConnection::open(from, to, address)?;
    sender.set_nonblocking(true)?;
    receiver.set_nonblocking(true)?;
    let data = vec![0x55; 64 << 10];
    let mut buffer = vec![0; 256 << 10];
    effort.cost(ROUND, || {
        let all = ROUND as usize * MEGABYTE;
        let (mut sent, mut read) = (0, 0);
        while read < all {
            let next = data.len().min(all - sent);
            sent += done(sender.write(&data[..next]))?;
            read += done(receiver.read(&mut buffer))?;
        }
        Ok(())
    })
}

/// How many bytes a call moved; none, where it would have to wait.
fn done(result: std::io::Result<usize>) -> Result<usize> {
    match result {
        Ok(bytes) => Ok(bytes),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
        Err(error) => bail!("the connection broke: {error}"),
    }
}

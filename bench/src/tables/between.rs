//! Traffic that has both its ends on this host.

use std::{
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
};

use anyhow::{Context, Result, bail};
use vlanfast_tests::{
    capture::in_netns,
    program::Attached,
    topology::{Netns, WIRE, Wire},
};

use crate::{Bench, contender::Contender, measure::FRAMES, report, site::settle};

const TABLE: &str = "between";

pub fn between(bench: &mut Bench) -> Result<()> {
    let wire = Wire::veth()?;
    crate::generator::prepare(&wire)?;
    let (a, b, c) = (end(&wire, 10, 2)?, end(&wire, 10, 3)?, end(&wire, 20, 2)?);
    wire.router.run("echo 1 >/proc/sys/net/ipv4/ip_forward")?;
    for contender in bench.rows(&[Contender::Kernel, Contender::Tc]) {
        let _attached = match contender {
            Contender::Kernel => None,
            _ => {
                let arguments = ["--ingress", "tc", "--docker", "off", "--metrics", "off"];
                Some(Attached::start(&wire.host, &wire.trunk, &arguments)?)
            }
        };
        settle();
        let who = contender.name();
        for (row, from, to, address) in [
            ("within one VLAN", &a, &b, [10, 0, 10, 3]),
            ("between two VLANs, by the router", &a, &c, [10, 0, 20, 2]),
        ] {
            report::step(&format!("{TABLE}: {who}: {row}"));
            let (near, far) = pair(from, to, address.into())?;
            for netns in [from, to, &wire.router] {
                freeze(netns)?;
            }
            let there = bench.effort.cost(FRAMES, || one_way(&near, &far))?;
            let back = bench.effort.cost(FRAMES, || round_trip(&near, &far))?;
            report::figure(TABLE, row, &format!("round trip, {who}"), back);
            report::figure(TABLE, row, &format!("one packet, {who}"), there);
        }
        let row = "between host and container";
        for column in ["round trip", "one packet"] {
            report::none(TABLE, row, &format!("{column}, {who}"), "no way");
        }
    }
    Ok(())
}

/// A container, and the VLAN's devices where they are missing yet.
fn end(wire: &Wire, vid: u16, number: u8) -> Result<Netns> {
    let absent = wire
        .router
        .run(&format!("ip link show {WIRE}.{vid}"))
        .is_err();
    if absent {
        wire.vlan(vid)?;
        let line = format!("ip addr add 10.0.{vid}.1/24 dev {WIRE}.{vid}");
        wire.router.run(&line)?;
    }
    let container = wire.container(vid, &format!("10.0.{vid}.{number}"))?;
    container.run(&format!("ip route add default via 10.0.{vid}.1"))?;
    Ok(container)
}

/// Two sockets that know each other.
fn pair(from: &Netns, to: &Netns, address: Ipv4Addr) -> Result<(UdpSocket, UdpSocket)> {
    let bind = |netns: &Netns| {
        let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 9000));
        in_netns(&netns.path(), move || {
            UdpSocket::bind(any).with_context(|| format!("failed to bind to {any}"))
        })
    };
    let (near, far) = (bind(from)?, bind(to)?);
    near.connect((address, 9000))?;
    // The first finds the neighbours, and tells the far end whom to answer.
    near.send(&[0; 18])?;
    let (_, whom) = far.recv_from(&mut [0; 64])?;
    far.connect(whom)?;
    near.set_nonblocking(true)?;
    far.set_nonblocking(true)?;
    Ok((near, far))
}

/// Makes the neighbours that a namespace has found permanent: the way to one that the kernel doubts is
/// longer, and when it begins to is chance.
fn freeze(netns: &Netns) -> Result<()> {
    netns.run(
        "ip neigh show nud all | while read address _ device _ mac _; do \
         case $mac in *:*) ip neigh change $address lladdr $mac dev $device nud permanent;; esac; done",
    )?;
    Ok(())
}

fn one_way(near: &UdpSocket, far: &UdpSocket) -> Result<()> {
    (0..FRAMES).try_for_each(|_| hand_over(near, far))
}

fn round_trip(near: &UdpSocket, far: &UdpSocket) -> Result<()> {
    (0..FRAMES).try_for_each(|_| {
        hand_over(near, far)?;
        hand_over(far, near)
    })
}

/// Sends a datagram and reads it at the other end; on one CPU it is there by then, or nearly.
fn hand_over(from: &UdpSocket, to: &UdpSocket) -> Result<()> {
    from.send(&[0; 18]).context("failed to send a datagram")?;
    for _ in 0..1000 {
        match to.recv(&mut [0; 64]) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
            Err(error) => bail!("failed to read a datagram: {error}"),
        }
    }
    bail!("a datagram got lost")
}

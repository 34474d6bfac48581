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

const WITH_AND_WITHOUT: [Contender; 3] =
    [Contender::Kernel, Contender::Tc, Contender::TcHostAccess];

pub fn between(bench: &mut Bench) -> Result<()> {
    let table = "between";
    let house = House::new()?;
    for contender in bench.rows(&WITH_AND_WITHOUT) {
        let _attached = house.attach(contender)?;
        let who = contender.name();
        for (row, from, to, address) in [
            ("within one VLAN", &house.a, &house.b, [10, 0, 10, 3]),
            (
                "between two VLANs, by the router",
                &house.a,
                &house.c,
                [10, 0, 20, 2],
            ),
            (HOST_AND_CONTAINER, house.host(), &house.a, [10, 0, 10, 2]),
        ] {
            let columns = [format!("round trip, {who}"), format!("one packet, {who}")];
            if row == HOST_AND_CONTAINER && contender != Contender::TcHostAccess {
                columns
                    .iter()
                    .for_each(|column| report::none(table, row, column, "no way"));
                continue;
            }
            report::step(&format!("{table}: {who}: {row}"));
            let (near, far) = pair(from, to, address.into())?;
            house.freeze()?;
            let there = bench.effort.cost(FRAMES, || one_way(&near, &far))?;
            let back = bench.effort.cost(FRAMES, || round_trip(&near, &far))?;
            report::figure(table, row, &columns[0], back);
            report::figure(table, row, &columns[1], there);
        }
    }
    Ok(())
}

pub fn bulk(bench: &mut Bench) -> Result<()> {
    let table = "between-bulk";
    let house = House::new()?;
    for contender in bench.rows(&[Contender::Kernel, Contender::TcHostAccess]) {
        let _attached = house.attach(contender)?;
        let column = contender.name();
        for (row, from, to, address) in [
            ("container to container", &house.a, &house.b, [10, 0, 10, 3]),
            ("host to container", house.host(), &house.a, [10, 0, 10, 2]),
            ("container to host", &house.a, house.host(), HOST),
        ] {
            if contender == Contender::Kernel && row != "container to container" {
                report::none(table, row, column, "no way");
                continue;
            }
            report::step(&format!("{table}: {column}: {row}"));
            let cost = super::bulk::median(bench.effort, from, to, address.into())?;
            report::figure(table, row, column, cost);
        }
    }
    Ok(())
}

/// The host's address on VLAN 10.
const HOST: [u8; 4] = [10, 0, 10, 250];
const HOST_AND_CONTAINER: &str = "between host and container";

/// A host with two containers on VLAN 10 and one on VLAN 20, and the router between the VLANs.
struct House {
    wire: Wire,
    a: Netns,
    b: Netns,
    c: Netns,
}

impl House {
    fn new() -> Result<Self> {
        let wire = Wire::veth()?;
        crate::generator::prepare(&wire)?;
        let (a, b, c) = (end(&wire, 10, 2)?, end(&wire, 10, 3)?, end(&wire, 20, 2)?);
        wire.router.run("echo 1 >/proc/sys/net/ipv4/ip_forward")?;
        let [one, two, three, four] = HOST;
        wire.host.run(&format!(
            "ip addr add {one}.{two}.{three}.{four}/24 dev {}.10",
            wire.trunk
        ))?;
        Ok(Self { wire, a, b, c })
    }

    fn host(&self) -> &Netns {
        &self.wire.host
    }

    fn attach(&self, contender: Contender) -> Result<Option<Attached>> {
        let mut arguments = vec!["--ingress", "tc", "--docker", "off", "--metrics", "off"];
        match contender {
            Contender::Kernel => return Ok(None),
            Contender::TcHostAccess => arguments.extend(["--host-access", "all"]),
            _ => {}
        }
        let attached = Attached::start(&self.wire.host, &self.wire.trunk, &arguments)?;
        settle();
        Ok(Some(attached))
    }

    fn freeze(&self) -> Result<()> {
        [
            &self.a,
            &self.b,
            &self.c,
            &self.wire.host,
            &self.wire.router,
        ]
        .into_iter()
        .try_for_each(freeze)
    }
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

//! Traffic that has both its ends on this host.

use std::{
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
};

use anyhow::{Context, Result, bail, ensure};
use vlanfast_tests::{
    net::{
        namespace::{Netns, in_netns},
        ping,
        ping::{is_whole, median_time},
        topology::{WIRE, Wire},
    },
    run::program::Attached,
};

use crate::{
    bare_shortcut::{BareShortcut, Devices},
    bench::Bench,
    measure::FRAMES,
    one_container::settle,
    report,
    rows::Rows,
};

/// What is attached to the trunk.
#[derive(Clone, Copy)]
enum On<'a> {
    /// The kernel alone.
    Nothing,
    /// vlanfast, and what it is asked to do besides.
    Vlanfast(&'a [&'a str]),
    /// A program that does nothing but rewrite and redirect.
    Bare(Devices),
}

impl On<'_> {
    /// The least set of rows that has those with it.
    const fn belongs(self) -> Rows {
        match self {
            Self::Nothing => Rows::Kernel,
            Self::Vlanfast(_) => Rows::Vlanfast,
            Self::Bare(_) => Rows::All,
        }
    }
}

const DEFAULT: On<'_> = On::Vlanfast(&[]);
const HOST_ACCESS: On<'_> = On::Vlanfast(&["--host-access", "all"]);
const SHORTCUT: On<'_> = On::Vlanfast(&["--shortcut", "allow", "--shortcut-allow", "10:20"]);
/// The shortcut that is taken once the router has been seen to forward a flow.
const LEARNT: On<'_> = On::Vlanfast(&["--shortcut", "learned", "--shortcut-refresh", "0"]);

pub fn between(bench: &mut Bench) -> Result<()> {
    let table = "between";
    let two_vlans = TwoVlans::new()?;
    let within = (&two_vlans.a, &two_vlans.b, [10, 0, 10, 3]);
    let across = (&two_vlans.a, &two_vlans.c, [10, 0, 20, 2]);
    let host = (two_vlans.host(), &two_vlans.a, [10, 0, 10, 2]);
    let out = (&two_vlans.a, &two_vlans.wire.router, [10, 0, 10, 1]);
    for (row, on, (from, to, address)) in [
        ("within one VLAN, kernel alone", On::Nothing, within),
        ("within one VLAN, vlanfast, TC", DEFAULT, within),
        ("by the router, kernel alone", On::Nothing, across),
        ("by the router, vlanfast, TC", DEFAULT, across),
        ("by the router, host access on", HOST_ACCESS, across),
        ("by the shortcut", SHORTCUT, across),
        ("by the shortcut, learnt", LEARNT, across),
        (
            "by a bare program on the trunk",
            On::Bare(Devices::Trunk),
            across,
        ),
        (
            "by a bare program on VLAN devices",
            On::Bare(Devices::Parents),
            across,
        ),
        ("host to container, host access", HOST_ACCESS, host),
        ("to the router itself, kernel alone", On::Nothing, out),
        ("to the router itself, vlanfast, TC", DEFAULT, out),
        ("to the router itself, shortcut allowed", SHORTCUT, out),
    ] {
        if on.belongs() > bench.rows {
            continue;
        }
        report::step(&format!("{table}: {row}"));
        let _attached = two_vlans.attach(on)?;
        let (near, far) = pair(from, to, address.into())?;
        two_vlans.freeze()?;
        let there = bench.effort.cost(FRAMES, || one_way(&near, &far))?;
        let back = bench.effort.cost(FRAMES, || round_trip(&near, &far))?;
        report::figure(table, row, "round trip", back);
        report::figure(table, row, "one packet", there);
    }
    Ok(())
}

pub fn bulk(bench: &mut Bench) -> Result<()> {
    let table = "between-bulk";
    let two_vlans = TwoVlans::new()?;
    let column = "instructions for a megabyte";
    for (row, on, from, to, address) in [
        (
            "container to container",
            On::Nothing,
            &two_vlans.a,
            &two_vlans.b,
            [10, 0, 10, 3],
        ),
        (
            "host to container",
            HOST_ACCESS,
            two_vlans.host(),
            &two_vlans.a,
            [10, 0, 10, 2],
        ),
        (
            "container to host",
            HOST_ACCESS,
            &two_vlans.a,
            two_vlans.host(),
            HOST,
        ),
        (
            "between two VLANs, by the router",
            On::Nothing,
            &two_vlans.a,
            &two_vlans.c,
            [10, 0, 20, 2],
        ),
        (
            "between two VLANs, by the shortcut",
            SHORTCUT,
            &two_vlans.a,
            &two_vlans.c,
            [10, 0, 20, 2],
        ),
    ] {
        if on.belongs() > bench.rows {
            continue;
        }
        report::step(&format!("{table}: {row}"));
        let _attached = two_vlans.attach(on)?;
        let cost = super::bulk::median(bench.effort, from, to, address.into())?;
        report::figure(table, row, column, cost);
    }
    Ok(())
}

/// Pings past a router that delays each packet by half a millisecond, without use of the CPU.
pub fn ping(bench: &mut Bench) -> Result<()> {
    let table = "ping";
    let two_vlans = TwoVlans::new()?;
    for vid in [10, 20] {
        let delay = format!("tc qdisc add dev {WIRE}.{vid} root netem delay 500us");
        two_vlans.wire.router.run(&delay)?;
    }
    for (row, on, address) in [
        ("within one VLAN, kernel alone", On::Nothing, "10.0.10.3"),
        ("by the router, kernel alone", On::Nothing, "10.0.20.2"),
        ("by the shortcut", SHORTCUT, "10.0.20.2"),
        ("by the shortcut, learnt", LEARNT, "10.0.20.2"),
    ] {
        if on.belongs() > bench.rows {
            continue;
        }
        report::step(&format!("{table}: {row}"));
        let _attached = two_vlans.attach(on)?;
        let said = ping::ping(&two_vlans.a, address, 101, "")?;
        ensure!(is_whole(&said), "{said}");
        report::figure(table, row, "µs for a round trip", 1e3 * median_time(&said)?);
    }
    Ok(())
}

/// What is attached, until this is dropped.
#[derive(Default)]
struct Attachment {
    _vlanfast: Option<Attached>,
    _bare: Option<BareShortcut>,
}

/// The host's address on VLAN 10.
const HOST: [u8; 4] = [10, 0, 10, 250];

/// A host with two containers on VLAN 10 and one on VLAN 20, and the router between the VLANs.
struct TwoVlans {
    wire: Wire,
    a: Netns,
    b: Netns,
    c: Netns,
}

impl TwoVlans {
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

    fn attach(&self, on: On<'_>) -> Result<Attachment> {
        let attachment = match on {
            On::Nothing => Attachment::default(),
            On::Vlanfast(asked) => {
                let plain = ["--ingress", "tc", "--docker", "off", "--metrics", "off"];
                let arguments = [&plain[..], asked].concat();
                let attached = Attached::start(&self.wire.host, &self.wire.trunk, &arguments)?;
                Attachment {
                    _vlanfast: Some(attached),
                    ..Attachment::default()
                }
            }
            On::Bare(devices) => Attachment {
                _bare: Some(BareShortcut::new(
                    &self.wire,
                    devices,
                    [(10, &self.a), (20, &self.c)],
                )?),
                ..Attachment::default()
            },
        };
        settle();
        Ok(attachment)
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

/// Makes a container, and the VLAN's devices where they are missing.
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

/// Two UDP sockets that are connected to each other.
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

/// Makes the neighbours that a namespace has found permanent. A packet for a stale neighbour takes a longer way, and
/// when a neighbour becomes stale is chance.
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

//! A host with a container on each of two VLANs, and the router between them.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::{
    capture::in_netns,
    program::Attached,
    topology::{Netns, WIRE, Wire},
};

/// The addresses of the container on VLAN 10.
pub const NEAR: [&str; 2] = ["10.0.10.2", "fd00:10::2"];
/// Those of the one on VLAN 20.
pub const FAR: [&str; 2] = ["10.0.20.2", "fd00:20::2"];

/// How ingress is read by default: on a veth, and on a device whose driver has XDP.
pub const TC: &[&str] = &["tcx", "clsact"];
pub const XDP: &[&str] = &["xdp-native"];

pub struct House {
    pub wire: Wire,
    pub near: Netns,
    pub far: Netns,
}

impl House {
    pub fn new() -> Result<Self> {
        Self::on(Wire::veth()?)
    }

    pub fn on(wire: Wire) -> Result<Self> {
        let forward = "echo 1 >/proc/sys/net/ipv4/ip_forward; \
                       echo 1 >/proc/sys/net/ipv6/conf/all/forwarding";
        wire.router.run(forward)?;
        let near = container(&wire, 10)?;
        let far = container(&wire, 20)?;
        Ok(Self { wire, near, far })
    }

    pub fn attach(&self, arguments: &[&str]) -> Result<Attached> {
        Attached::start(&self.wire.host, &self.wire.trunk, arguments)
    }

    /// The same where ingress has to be read by one of these.
    pub fn attach_by(&self, ingress: &[&str], arguments: &[&str]) -> Result<Attached> {
        let attached = self.attach(arguments)?;
        let kind = attached.kind("ingress")?;
        ensure!(ingress.contains(&kind.as_str()), "ingress by {kind}");
        Ok(attached)
    }

    /// Packets that the router has forwarded, in both protocols.
    pub fn routed(&self) -> Result<u64> {
        let text = self.wire.router.run("cat /proc/net/snmp /proc/net/snmp6")?;
        let mut ip = text.lines().filter(|line| line.starts_with("Ip:"));
        let (names, values) = (ip.next().context("names")?, ip.next().context("values")?);
        let (_, forwarded) = names
            .split_whitespace()
            .zip(values.split_whitespace())
            .find(|(name, _)| *name == "ForwDatagrams")
            .context("a count of IPv4")?;
        let forwarded6 = text
            .lines()
            .find_map(|line| line.strip_prefix("Ip6OutForwDatagrams"))
            .context("a count of IPv6")?;
        Ok(forwarded.parse::<u64>()? + forwarded6.trim().parse::<u64>()?)
    }

    /// So many segments of either container's were lost, or taken for lost, or came twice.
    pub fn sent_again_at_most(&self, most: u64) -> Result<()> {
        for end in [&self.near, &self.far] {
            for name in ["RetransSegs", "TCPDSACKRecv"] {
                let count = counter(end, name)?;
                ensure!(count <= most, "{name}: {count}");
            }
        }
        Ok(())
    }

    /// Pings both ways, in both protocols: nothing is lost or doubled, and each has made its hops.
    pub fn pings(&self, count: u32, ttl: u8) -> Result<()> {
        for (from, addresses) in [(&self.near, FAR), (&self.far, NEAR)] {
            for address in addresses {
                let said = ping(from, address, count, "")?;
                ensure!(is_whole(&said), "{said}");
                ensure!(said.contains(&format!("ttl={ttl} ")), "{said}");
            }
        }
        Ok(())
    }
}

/// A connection between the two containers, which rests unless it is told to go on.
pub struct Connection {
    near: TcpStream,
    far: TcpStream,
}

impl Connection {
    pub fn new(house: &House) -> Result<Self> {
        let there = (FAR[0], 5002);
        let listener = in_netns(&house.far.path(), move || Ok(TcpListener::bind(there)?))?;
        let near = in_netns(&house.near.path(), move || Ok(TcpStream::connect(there)?))?;
        let far = listener.accept()?.0;
        for end in [&near, &far] {
            end.set_read_timeout(Some(Duration::from_secs(30)))?;
        }
        Ok(Self { near, far })
    }

    /// So many words, each with its answer.
    pub fn go_on(&mut self, count: u32) -> Result<()> {
        for word in 0..count {
            let word = word.to_be_bytes();
            let mut read = [0; 4];
            self.near.write_all(&word)?;
            self.far.read_exact(&mut read)?;
            self.far.write_all(&read)?;
            self.near.read_exact(&mut read)?;
            ensure!(read == word, "{read:?} is not {word:?}");
        }
        Ok(())
    }
}

/// A container with the router's addresses beside it.
fn container(wire: &Wire, vid: u16) -> Result<Netns> {
    wire.vlan(vid)?;
    // A router asks for nobody before its link-local address is good.
    let ipv6 = |device: &str| {
        let settings = format!("/proc/sys/net/ipv6/conf/{device}");
        format!("echo 0 >{settings}/accept_dad && echo 0 >{settings}/disable_ipv6")
    };
    let gateway = format!("{WIRE}.{vid}");
    wire.router.run(&format!(
        "{} && ip addr add 10.0.{vid}.1/24 dev {gateway} && \
         ip addr add fd00:{vid}::1/64 dev {gateway} nodad",
        ipv6(&gateway)
    ))?;
    let container = wire.container(vid, &format!("10.0.{vid}.2"))?;
    container.run(&format!(
        "{} && ip addr add fd00:{vid}::2/64 dev eth0 nodad && \
         ip route add default via 10.0.{vid}.1 && ip -6 route add default via fd00:{vid}::1",
        ipv6("eth0")
    ))?;
    Ok(container)
}

/// A namespace behind a container, which translates for it (IPv4). What it sends is single packets with checksums
/// when it leaves the container, which a container's own never is: macvlan always has both offloads.
pub fn without_offloads(container: &Netns) -> Result<Netns> {
    let behind = Netns::new()?;
    container.run(&format!(
        "ip link add behind type veth peer name eth0 netns {} && \
         ip addr add 10.0.99.1/24 dev behind && ip link set behind up && \
         echo 1 >/proc/sys/net/ipv4/ip_forward && \
         nft 'add table ip nat; \
         add chain ip nat postrouting {{ type nat hook postrouting priority 100; }}; \
         add rule ip nat postrouting oifname eth0 masquerade'",
        behind.name
    ))?;
    behind.run(
        "ethtool -K eth0 tx off && ip addr add 10.0.99.2/24 dev eth0 && \
         ip link set eth0 up && ip route add default via 10.0.99.1",
    )?;
    Ok(behind)
}

/// A counter of a namespace's IPv4 and TCP; the sum of those that have the name in several protocols.
pub fn counter(netns: &Netns, name: &str) -> Result<u64> {
    let text = netns.run("cat /proc/net/snmp /proc/net/netstat")?;
    let lines: Vec<_> = text.lines().collect();
    let values: Vec<u64> = lines
        .chunks(2)
        .flat_map(|pair| pair[0].split_whitespace().zip(pair[1].split_whitespace()))
        .filter(|(key, _)| *key == name)
        .map(|(_, value)| Ok(value.parse()?))
        .collect::<Result<_>>()?;
    ensure!(!values.is_empty(), "there is no {name}");
    Ok(values.iter().sum())
}

/// What a ping of so many says, with further options.
pub fn ping(from: &Netns, address: &str, count: u32, options: &str) -> Result<String> {
    from.run(&format!(
        "ping -n -c {count} -i 0.01 -W 2 {options} {address} || true"
    ))
}

/// Whether everything was answered, once.
pub fn is_whole(said: &str) -> bool {
    said.contains(" 0% packet loss") && !said.contains("DUP!")
}

/// The median of the milliseconds that a ping tells one by one.
pub fn median_time(said: &str) -> Result<f64> {
    let times = said.split("time=").skip(1);
    let times = times.map(|rest| Ok(rest.split(' ').next().unwrap_or_default().parse()?));
    let mut times = times.collect::<Result<Vec<f64>>>()?;
    times.sort_by(f64::total_cmp);
    let median = times.get(times.len() / 2).copied();
    median.with_context(|| format!("a ping that was answered: {said}"))
}

/// Packets of a VLAN that took the shortcut.
pub fn shortcuts(attached: &Attached, vid: u16) -> Result<u64> {
    let row = attached.row(vid)?;
    row["verdicts"]["tx"]["shortcut"]
        .as_u64()
        .with_context(|| format!("{row:#}"))
}

//! Many containers on one VLAN.

use std::{
    io::Write,
    net::{Ipv4Addr, Ipv6Addr},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use vlanfast_tests::net::namespace;

use crate::{
    frame::{ROUTER_IPV6, ROUTER_MAC, VID, mac_text},
    one_container::{OneContainer, settle},
};

/// Containers on the VLAN of a network, whose own container is number 0.
pub struct Containers {
    pub size: usize,
    namespaces: namespace::ManyNamespaces,
}

impl Containers {
    /// Adds containers to a network until it has `size`.
    pub fn new(network: &OneContainer, size: usize) -> Result<Self> {
        let containers = Self::gather(network, size)?;
        for number in 1..size {
            batch(&containers.name(network, number), &up(number))?;
        }
        settle();
        Ok(containers)
    }

    /// Adds containers, and gives all of them two IPv6 addresses: one with a solicited-node group of its own, and one
    /// whose group is that of all others.
    pub fn with_ipv6(network: &OneContainer, size: usize) -> Result<Self> {
        let containers = Self::gather(network, size)?;
        network.container.run(
            "ip link set eth0 addrgenmode none && echo 0 >/proc/sys/net/ipv6/conf/eth0/disable_ipv6",
        )?;
        batch(&network.container.name, &ipv6(0))?;
        for number in 1..size {
            batch(
                &containers.name(network, number),
                &(up(number) + &ipv6(number)),
            )?;
        }
        // They report their groups twice, within seconds: no answers to anybody.
        (0..10).for_each(|_| settle());
        Ok(containers)
    }

    /// Makes the devices in namespaces of their own, and leaves them down.
    fn gather(network: &OneContainer, size: usize) -> Result<Self> {
        let namespaces = namespace::ManyNamespaces::new(size - 1)?;
        let containers = Self { size, namespaces };
        let parent = network.parent();
        let links = (1..size).map(|number| {
            let (mac, name) = (mac(number), containers.name(network, number));
            format!(
                "link add link {parent} name eth0 address {mac} type macvlan mode bridge\n\
                 link set eth0 netns {name}\n"
            )
        });
        batch(&network.wire.host.name, &links.collect::<String>())?;
        Ok(containers)
    }

    fn name(&self, network: &OneContainer, number: usize) -> String {
        match number {
            0 => network.container.name.clone(),
            _ => self.namespaces.name(number - 1),
        }
    }
}

/// Commands that give a container its address, and no other: IPv6 would have something of its own to say.
fn up(number: usize) -> String {
    format!(
        "link set eth0 addrgenmode none\n\
         addr add {}/16 dev eth0\n\
         link set eth0 up\n",
        Ipv4Addr::from(address(number))
    )
}

/// Commands that give a container its IPv6 addresses at once, and a way to the router that needs no solicitation.
fn ipv6(number: usize) -> String {
    format!(
        "addr add {}/64 dev eth0 nodad\n\
         addr add {}/64 dev eth0 nodad\n\
         neigh add {} lladdr {} dev eth0 nud permanent\n",
        Ipv6Addr::from(address_ipv6(number)),
        Ipv6Addr::from(address_alike(number)),
        Ipv6Addr::from(ROUTER_IPV6),
        mac_text(ROUTER_MAC)
    )
}

/// Runs many commands of `ip` in one process.
fn batch(netns: &str, commands: &str) -> Result<()> {
    let mut child = Command::new("ip")
        .args(["-n", netns, "-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .context("failed to start ip")?;
    let mut stdin = child.stdin.take().context("stdin is piped")?;
    stdin.write_all(commands.as_bytes())?;
    drop(stdin);
    let status = child.wait()?;
    ensure!(status.success(), "ip -batch failed: {status}");
    Ok(())
}

/// The addresses of the container with a number; of 0, those that it has.
pub fn address(number: usize) -> [u8; 4] {
    let [.., high, low] = (number + 2).to_be_bytes();
    [10, 0, VID as u8 + high, low]
}

pub fn address_ipv6(number: usize) -> [u8; 16] {
    let mut address = ROUTER_IPV6;
    address[14..].copy_from_slice(&address_bytes(number));
    address
}

/// An address whose last 24 bits, and so its solicited-node group, are those of all others.
pub fn address_alike(number: usize) -> [u8; 16] {
    let mut address = ROUTER_IPV6;
    address[10..12].copy_from_slice(&address_bytes(number));
    address
}

/// The MAC of the container with a number. It is the same in each run, so that macvlan's hash table is too.
fn mac(number: usize) -> String {
    let [high, low] = address_bytes(number);
    mac_text([0x02, 0, 0, 1, high, low])
}

fn address_bytes(number: usize) -> [u8; 2] {
    (number as u16 + 2).to_be_bytes()
}

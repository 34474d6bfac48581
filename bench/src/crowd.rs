//! Many containers on the VLAN of a site.

use std::{
    io::Write,
    net::{Ipv4Addr, Ipv6Addr},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use vlanfast_tests::net::namespace;

use crate::{
    frame::{ROUTER_IPV6, VID},
    site::{ROUTER_MAC, Site, settle, text},
};

/// The containers beside the site's own, which is number 0.
pub struct Crowd {
    pub size: usize,
    namespaces: namespace::ManyNamespaces,
}

impl Crowd {
    /// Adds containers to a site until it has `size`.
    pub fn new(site: &Site, size: usize) -> Result<Self> {
        let crowd = Self::gather(site, size)?;
        for number in 1..size {
            batch(&crowd.name(site, number), &up(number))?;
        }
        settle();
        Ok(crowd)
    }

    /// The same, and all have IPv6 addresses too: one of a group of its own, and one of everybody's.
    pub fn with_ipv6(site: &Site, size: usize) -> Result<Self> {
        let crowd = Self::gather(site, size)?;
        site.container.run(
            "ip link set eth0 addrgenmode none && echo 0 >/proc/sys/net/ipv6/conf/eth0/disable_ipv6",
        )?;
        batch(&site.container.name, &ipv6(0))?;
        for number in 1..size {
            batch(&crowd.name(site, number), &(up(number) + &ipv6(number)))?;
        }
        // They report their groups twice, within seconds: no answers to anybody.
        (0..10).for_each(|_| settle());
        Ok(crowd)
    }

    /// Devices in namespaces, not up yet.
    fn gather(site: &Site, size: usize) -> Result<Self> {
        let namespaces = namespace::ManyNamespaces::new(size - 1)?;
        let crowd = Self { size, namespaces };
        let parent = site.parent();
        let links = (1..size).map(|number| {
            let (mac, name) = (mac(number), crowd.name(site, number));
            format!(
                "link add link {parent} name eth0 address {mac} type macvlan mode bridge\n\
                 link set eth0 netns {name}\n"
            )
        });
        batch(&site.wire.host.name, &links.collect::<String>())?;
        Ok(crowd)
    }

    fn name(&self, site: &Site, number: usize) -> String {
        match number {
            0 => site.container.name.clone(),
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

/// Commands that give it those of IPv6 at once, and a way to the router that needs no solicitation.
fn ipv6(number: usize) -> String {
    format!(
        "addr add {}/64 dev eth0 nodad\n\
         addr add {}/64 dev eth0 nodad\n\
         neigh add {} lladdr {} dev eth0 nud permanent\n",
        Ipv6Addr::from(address_ipv6(number)),
        Ipv6Addr::from(address_alike(number)),
        Ipv6Addr::from(ROUTER_IPV6),
        text(ROUTER_MAC)
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

/// One whose last 24 bits, and so its solicited-node group, are everybody's.
pub fn address_alike(number: usize) -> [u8; 16] {
    let mut address = ROUTER_IPV6;
    address[10..12].copy_from_slice(&address_bytes(number));
    address
}

/// Always the same, so that macvlan's hash table is.
fn mac(number: usize) -> String {
    let [high, low] = address_bytes(number);
    text([0x02, 0, 0, 1, high, low])
}

fn address_bytes(number: usize) -> [u8; 2] {
    (number as u16 + 2).to_be_bytes()
}

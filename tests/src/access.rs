//! The host and a container on one VLAN, by `--host-access`.

use std::{thread, time::Duration};

use anyhow::{Context, Result, ensure};

use crate::{
    capture::Packets,
    messages::arp,
    packet::{BROADCAST, frame},
    program::Attached,
    scenario::transfer,
    topology::{Netns, Wire},
};

const HOST: &str = "10.9.0.250";
const CONTAINER: &str = "10.9.0.2";
const HOST6: &str = "fd00:9::250";
const CONTAINER6: &str = "fd00:9::2";

/// A host with an address on a VLAN, and a macvlan of a mode on the same.
pub struct Lan<'a> {
    wire: &'a Wire,
    /// The host's device on the VLAN.
    device: String,
    vid: u16,
    container: Netns,
}

impl<'a> Lan<'a> {
    /// On the trunk itself for VID 0; else on a device that is there.
    pub fn new(wire: &'a Wire, vid: u16, mode: &str) -> Result<Self> {
        let device = match vid {
            0 => wire.trunk.clone(),
            vid => format!("{}.{vid}", wire.trunk),
        };
        let container = Netns::new()?;
        wire.host.run(&format!(
            "ip link add link {device} name mv0 type macvlan mode {mode} && \
             ip link set mv0 netns {} && {}",
            container.name,
            addressed(&device, HOST, HOST6),
        ))?;
        container.run(&addressed("mv0", CONTAINER, CONTAINER6))?;
        Ok(Self {
            wire,
            device,
            vid,
            container,
        })
    }

    /// Both ways, with cold caches, over both protocols: nothing is lost, and nothing is on the wire.
    pub fn talks(&self, attached: &Attached, pings: u32) -> Result<()> {
        let host = &self.wire.host;
        for (from, device, addresses) in [
            (host, self.device.as_str(), [CONTAINER, CONTAINER6]),
            (&self.container, "mv0", [HOST, HOST6]),
        ] {
            for address in addresses {
                for netns in [host, &self.container] {
                    netns.run("ip neigh flush all && ip -6 neigh flush all")?;
                }
                let line = format!("ping -q -n -c {pings} -i 0.005 -I {device} {address}");
                let said = from.run(&line)?;
                ensure!(said.contains(" 0% packet loss"), "{said}");
                ensure!(!said.contains("duplicates"), "{said}");
            }
        }
        transfer(host, &self.container, CONTAINER)?;
        transfer(&self.container, host, HOST)?;
        let counters = attached.row(self.vid)?;
        let reflected = counters["verdicts"]["tx"]["reflect"]
            .as_u64()
            .context("a number")?;
        ensure!(reflected > u64::from(8 * pings), "{counters:#}");
        let unicast = &counters["tx"]["packets"]["unicast"];
        ensure!(unicast == 0, "{unicast} frames left for the wire");
        ensure!(counters["rx"]["packets"]["unicast"] == 0, "{counters:#}");
        Ok(())
    }

    /// What one side announces, the other hears.
    pub fn announces(&self) -> Result<()> {
        let host = &self.wire.host;
        let wrong = "02:00:00:00:09:99";
        for (from, device, address, to, at) in [
            (
                &self.container,
                "mv0",
                CONTAINER,
                host,
                self.device.as_str(),
            ),
            (host, self.device.as_str(), HOST, &self.container, "mv0"),
        ] {
            to.run(&format!(
                "ip neigh replace {address} lladdr {wrong} nud stale dev {at}"
            ))?;
            let mac = mac(from, device)?;
            let ip: std::net::Ipv4Addr = address.parse()?;
            let mut announcement = frame(BROADCAST, &arp(1, ip.octets(), ip.octets()), 60);
            announcement[6..12].copy_from_slice(&mac);
            announcement[22..28].copy_from_slice(&mac);
            Packets::open(&from.path(), device, false)?.send(&announcement)?;
            thread::sleep(Duration::from_millis(300));
            let known = to.run(&format!("ip neigh show {address} dev {at}"))?;
            let text = mac.map(|byte| format!("{byte:02x}")).join(":");
            ensure!(known.contains(&text), "{address} is {text}, not {known}");
        }
        Ok(())
    }

    /// A new address on either side is not taken for a duplicate of itself.
    pub fn detects_no_duplicates(&self) -> Result<()> {
        let host = &self.wire.host;
        for (netns, device, address) in [
            (&self.container, "mv0", "fd00:9::12"),
            (host, self.device.as_str(), "fd00:9::1250"),
        ] {
            netns.run(&format!("ip addr add {address}/64 dev {device}"))?;
            // Detection takes a second.
            thread::sleep(Duration::from_millis(2500));
            let shown = netns.run(&format!("ip -6 addr show dev {device} to {address}"))?;
            let settled = !shown.contains("tentative") && !shown.contains("dadfailed");
            ensure!(shown.contains(address) && settled, "{shown}");
        }
        Ok(())
    }

    /// Takes the host's addresses off again, so that another can come.
    pub fn leave(self) -> Result<()> {
        let line = format!("ip addr flush dev {}", self.device);
        self.wire.host.run(&line).map(drop)
    }

    /// Whether a ping of each side's reaches the other.
    pub fn reaches(&self) -> Result<[bool; 2]> {
        let ping = |netns: &Netns, address| -> Result<bool> {
            let line = format!("ping -q -n -c 1 -W 1 {address} >/dev/null && echo reached || true");
            Ok(netns.run(&line)?.contains("reached"))
        };
        Ok([
            ping(&self.wire.host, CONTAINER)?,
            ping(&self.container, HOST)?,
        ])
    }
}

/// Both addresses on a device, at once valid.
fn addressed(device: &str, address: &str, address6: &str) -> String {
    format!(
        "echo 0 >/proc/sys/net/ipv6/conf/{device}/disable_ipv6; ip addr add {address}/24 dev {device} && \
         ip addr add {address6}/64 dev {device} nodad && ip link set {device} up"
    )
}

fn mac(netns: &Netns, device: &str) -> Result<[u8; 6]> {
    let links = netns.run(&format!("ip -j link show {device}"))?;
    let links: serde_json::Value = serde_json::from_str(&links)?;
    let text = links[0]["address"].as_str().context("a device has a MAC")?;
    let mut mac = [0; 6];
    for (byte, digits) in mac.iter_mut().zip(text.split(':')) {
        *byte = u8::from_str_radix(digits, 16)?;
    }
    Ok(mac)
}

//! The host and its containers on one VLAN, by `--host-access`.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    capture::{Packets, Sniffer},
    messages::{announcement, arp},
    packet::{BROADCAST, frame},
    program::Attached,
    scenario::{datagrams, transfer},
    topology::{Netns, WIRE, Wire},
};

const HOST: &str = "10.9.0.250";
const CONTAINER: &str = "10.9.0.2";
const HOST6: &str = "fd00:9::250";
const CONTAINER6: &str = "fd00:9::2";
const OTHER: &str = "10.9.0.3";
const OTHER6: &str = "fd00:9::3";

/// What a buffer is longer than that stands for several packets.
pub const PACKET: u64 = 1600;

/// A host with an address on a VLAN, and two macvlans of a mode on the same.
pub struct Lan<'a> {
    wire: &'a Wire,
    /// The host's device on the VLAN.
    device: String,
    vid: u16,
    container: Netns,
    /// The other container, which is no side of anything.
    other: Netns,
}

impl<'a> Lan<'a> {
    /// On the trunk itself for VID 0; else on a device that is there.
    pub fn new(wire: &'a Wire, vid: u16, mode: &str) -> Result<Self> {
        let device = match vid {
            0 => wire.trunk.clone(),
            vid => format!("{}.{vid}", wire.trunk),
        };
        // A host that forwards is a way between its containers, and Docker may have made this one do so.
        wire.host.run(&format!(
            "echo 0 >/proc/sys/net/ipv4/ip_forward && {}",
            addressed(&device, HOST, HOST6),
        ))?;
        let container = |address, address6| -> Result<Netns> {
            let netns = Netns::new()?;
            wire.host.run(&format!(
                "ip link add link {device} name mv0 type macvlan mode {mode} && ip link set mv0 netns {}",
                netns.name,
            ))?;
            netns.run(&addressed("mv0", address, address6))?;
            Ok(netns)
        };
        Ok(Self {
            container: container(CONTAINER, CONTAINER6)?,
            other: container(OTHER, OTHER6)?,
            wire,
            device,
            vid,
        })
    }

    /// The two sides, each with its device and its addresses.
    fn sides(&self) -> [Side<'_>; 2] {
        [
            Side {
                netns: &self.wire.host,
                device: &self.device,
                addresses: [HOST, HOST6],
            },
            Side {
                netns: &self.container,
                device: "mv0",
                addresses: [CONTAINER, CONTAINER6],
            },
        ]
    }

    /// The two containers.
    fn containers(&self) -> [Side<'_>; 2] {
        let [_, container] = self.sides();
        let other = Side {
            netns: &self.other,
            device: "mv0",
            addresses: [OTHER, OTHER6],
        };
        [container, other]
    }

    /// Whose addresses a frame asks for.
    fn asked_for_by(&self, frame: &[u8]) -> Option<&'static str> {
        let mut addresses = self.sides().into_iter().flat_map(|side| side.addresses);
        addresses.find(|address| asks_for(frame, address.parse().expect("an address of ours")))
    }

    /// What comes to the router's end of the wire.
    fn wire(&self) -> Result<Packets> {
        Packets::open(&self.wire.router.path(), WIRE, true)
    }

    /// Both ways, with cold caches, over both protocols: nothing is lost, and nothing is on the wire. Gives how
    /// long the buffers are in which bulk arrives: the mean of the way where they are shortest.
    pub fn talks(&self, attached: &Attached, pings: u32) -> Result<u64> {
        let on_the_wire = self.wire()?;
        let mut shortest = u64::MAX;
        let [host, container] = self.sides();
        for (from, to) in [(&host, &container), (&container, &host)] {
            for address in to.addresses {
                from.forget()?;
                to.forget()?;
                let device = from.device;
                let line = format!("ping -q -n -c {pings} -i 0.002 -I {device} {address}");
                let said = from.netns.run(&line)?;
                ensure!(said.contains(" 0% packet loss"), "{said}");
                ensure!(!said.contains("duplicates"), "{said}");
                datagrams(from.netns, to.netns, address)?;
                let sniffer = Sniffer::start(&to.netns.path(), to.device)?;
                transfer(from.netns, to.netns, address)?;
                let (received, _) = sniffer.stop()?;
                let packets: u64 = received.values().flat_map(|sum| sum.packets).sum();
                let bytes: u64 = received.values().map(|sum| sum.bytes).sum();
                shortest = shortest.min(bytes / packets.max(1));
            }
        }
        let counters = attached.row(self.vid)?;
        let reflected = counters["verdicts"]["tx"]["reflect"]
            .as_u64()
            .context("a number")?;
        ensure!(reflected > u64::from(8 * pings), "{counters:#}");
        let unicast = &counters["tx"]["packets"]["unicast"];
        ensure!(unicast == 0, "{unicast} frames left for the wire");
        ensure!(counters["rx"]["packets"]["unicast"] == 0, "{counters:#}");
        // What asks goes there as well: somebody may have the address.
        let mut left = on_the_wire.incoming_with_tags()?;
        left.retain(|frame| frame[0] & 1 == 0);
        ensure!(left.is_empty(), "{} on the wire: {left:x?}", left.len());
        Ok(shortest)
    }

    /// The addresses that are asked for on the wire while each side looks for the other.
    pub fn asked_for(&self) -> Result<BTreeSet<&'static str>> {
        let on_the_wire = self.wire()?;
        let sides = self.sides();
        sides.iter().try_for_each(Side::forget)?;
        self.reaches()?;
        let frames = on_the_wire.incoming_with_tags()?;
        let asked_for = frames.iter().filter_map(|frame| self.asked_for_by(frame));
        Ok(asked_for.collect())
    }

    /// Whether the two containers reach each other. Where they do not, neither hears a frame of the other's.
    pub fn containers_reach(&self) -> Result<bool> {
        let containers = self.containers();
        let [one, other] = &containers;
        containers.iter().try_for_each(Side::forget)?;
        let mut reached = vec![];
        for (from, to) in [(one, other), (other, one)] {
            let mac = from.netns.mac(from.device)?;
            let at_the_other = Packets::open(&to.netns.path(), to.device, true)?;
            from.announce()?;
            reached.push(from.reaches(to)?);
            let mut heard = at_the_other.incoming()?;
            heard.retain(|frame| frame[6..12] == mac);
            ensure!(reached.ends_with(&[!heard.is_empty()]), "{heard:x?}");
        }
        ensure!(reached[0] == reached[1], "one way: {reached:?}");
        // In mode bridge they pass the trunk's ingress, also when they probe what they know seconds later.
        containers.iter().try_for_each(Side::forget)?;
        Ok(reached[0])
    }

    /// What one side announces, the other hears.
    pub fn announces(&self) -> Result<()> {
        let wrong = "02:00:00:00:09:99";
        let [host, container] = self.sides();
        for (from, to) in [(&host, &container), (&container, &host)] {
            let at = to.device;
            for address in from.addresses {
                to.netns.run(&format!(
                    "ip neigh replace {address} lladdr {wrong} nud stale dev {at}"
                ))?;
            }
            from.announce()?;
            thread::sleep(Duration::from_millis(300));
            let text = from
                .netns
                .mac(from.device)?
                .map(|byte| format!("{byte:02x}"))
                .join(":");
            for address in from.addresses {
                let known = to.netns.run(&format!("ip neigh show {address} dev {at}"))?;
                ensure!(known.contains(&text), "{address} is {text}, not {known}");
            }
        }
        Ok(())
    }

    /// All that is on the wire of what both sides announce.
    pub fn announced(&self) -> Result<Vec<Vec<u8>>> {
        let on_the_wire = self.wire()?;
        for side in self.sides() {
            side.announce()?;
        }
        thread::sleep(Duration::from_millis(300));
        let mut announced = on_the_wire.incoming_with_tags()?;
        // They may have more to say by themselves.
        let sides = self.sides();
        let sent = sides
            .iter()
            .map(Side::announcements)
            .collect::<Result<Vec<_>>>()?
            .concat();
        announced.retain(|frame| sent.iter().any(|sent| frame.ends_with(&sent[12..])));
        ensure!(announced.len() == sent.len(), "{announced:x?}");
        Ok(announced)
    }

    /// A new address on either side is not taken for a duplicate of itself.
    pub fn detects_no_duplicates(&self) -> Result<()> {
        for (side, address) in self.sides().iter().zip(["fd00:9::1250", "fd00:9::12"]) {
            let (netns, device) = (side.netns, side.device);
            netns.run(&format!("ip addr add {address}/64 dev {device}"))?;
            // Detection takes a second.
            thread::sleep(Duration::from_millis(2500));
            let shown = netns.run(&format!("ip -6 addr show dev {device} to {address}"))?;
            let settled = !shown.contains("tentative") && !shown.contains("dadfailed");
            ensure!(shown.contains(address) && settled, "{shown}");
        }
        Ok(())
    }

    /// What one side has, the other may not take.
    pub fn detects_duplicates(&self) -> Result<()> {
        let on_the_wire = self.wire()?;
        let [host, container] = self.sides();
        for (claimer, owner) in [(&host, &container), (&container, &host)] {
            let (device, [_, address]) = (claimer.device, owner.addresses);
            let run = |line: &str| claimer.netns.run(line);
            run(&format!("ip addr add {address}/64 dev {device}"))?;
            let show = format!("ip -6 addr show dev {device} to {address}");
            let start = Instant::now();
            while !run(&show)?.contains("dadfailed") {
                let shown = run(&show)?;
                let waits = shown.contains("tentative") && start.elapsed().as_secs() < 10;
                ensure!(waits, "{address} is taken: {shown}");
                thread::sleep(Duration::from_millis(50));
            }
            run(&format!("ip addr del {address}/64 dev {device}"))?;
        }
        // The wire is asked all the same.
        let asked = on_the_wire.incoming_with_tags()?;
        let asked = asked.iter().filter_map(|frame| self.asked_for_by(frame));
        let asked: BTreeSet<_> = asked.collect();
        ensure!(asked == BTreeSet::from([HOST6, CONTAINER6]), "{asked:?}");
        Ok(())
    }

    /// Takes the host's addresses off again, so that another can come.
    pub fn leave(self) -> Result<()> {
        let line = format!("ip addr flush dev {}", self.device);
        self.wire.host.run(&line).map(drop)
    }

    /// Whether each side reaches the other.
    pub fn reaches(&self) -> Result<[bool; 2]> {
        let [host, container] = self.sides();
        Ok([host.reaches(&container)?, container.reaches(&host)?])
    }
}

/// Both addresses on a device, at once valid.
pub(crate) fn addressed(device: &str, address: &str, address6: &str) -> String {
    format!(
        "echo 0 >/proc/sys/net/ipv6/conf/{device}/disable_ipv6; ip addr add {address}/24 dev {device} && \
         ip addr add {address6}/64 dev {device} nodad && ip link set {device} up"
    )
}

/// Whether a frame is an ARP request or a neighbour solicitation for an address; not an announcement of it.
fn asks_for(frame: &[u8], address: IpAddr) -> bool {
    let rest = match frame[12..14] {
        [0x81, 0] => &frame[16..],
        _ => &frame[12..],
    };
    match address {
        IpAddr::V4(address) => {
            rest.starts_with(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 1])
                && rest[26..30] == address.octets()
                && rest[16..20] != address.octets()
        }
        IpAddr::V6(address) => {
            let is_icmpv6 = rest.starts_with(&[0x86, 0xdd]) && rest[8] == 58;
            is_icmpv6 && rest[42..44] == [135, 0] && rest[50..66] == address.octets()
        }
    }
}

/// The host or a container.
struct Side<'a> {
    netns: &'a Netns,
    device: &'a str,
    addresses: [&'static str; 2],
}

impl Side<'_> {
    /// Empties the caches.
    fn forget(&self) -> Result<()> {
        let line = "ip neigh flush all && ip -6 neigh flush all";
        self.netns.run(line).map(drop)
    }

    /// Whether pings are answered: over both protocols, or over neither.
    fn reaches(&self, other: &Side) -> Result<bool> {
        let pings = other.addresses.map(|address| {
            format!("(ping -q -n -c 3 -i 0.2 -W 1 {address} >/dev/null && echo {address}) &")
        });
        let reached = self.netns.run(&format!("{} wait", pings.join(" ")))?;
        match reached.lines().count() {
            0 => Ok(false),
            2 => Ok(true),
            _ => bail!("reaches only {reached}"),
        }
    }

    /// Gratuitous ARP and an unsolicited neighbour advertisement.
    fn announcements(&self) -> Result<Vec<Vec<u8>>> {
        let mac = self.netns.mac(self.device)?;
        let [address, address6] = self.addresses;
        let address: Ipv4Addr = address.parse()?;
        let address6: Ipv6Addr = address6.parse()?;
        let mut gratuitous = frame(BROADCAST, &arp(1, address.octets(), address.octets()), 60);
        gratuitous[22..28].copy_from_slice(&mac);
        let all_nodes = [0x33, 0x33, 0, 0, 0, 1];
        let advertisement = frame(all_nodes, &announcement(address6.octets(), mac), 60);
        let mut both = vec![gratuitous, advertisement];
        for frame in &mut both {
            frame[6..12].copy_from_slice(&mac);
        }
        Ok(both)
    }

    fn announce(&self) -> Result<()> {
        let socket = Packets::open(&self.netns.path(), self.device, false)?;
        self.announcements()?
            .iter()
            .try_for_each(|frame| socket.send(frame))
    }
}

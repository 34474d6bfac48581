//! What leaves the trunk.

use vlanfast_common::{Mac, Verdict};

use super::{Decided, named};
use crate::{
    messages::*,
    packet::BROADCAST,
    world::{CONTAINER, GUESTS, PARENT, SHIM, SIBLING, STANDBY, TRUNK, TWICE},
};

/// By host access, where the frames leave.
pub fn reflecting() -> Vec<Decided> {
    use Verdict::{Copy, Pass};
    let reflected = |mac| Verdict::Reflect { mac: Mac(mac) };
    let copied = |mac| Copy { mac: Mac(mac) };
    let sent = |name, from: [u8; 6], destination, rest: &[u8], verdict| {
        let mut decided = named(name, destination, 10, rest, verdict);
        decided.bytes[6..12].copy_from_slice(&from);
        decided
    };
    let ip = [8, 0, 0x45];
    let (_, taker_group) = group(TAKER6);
    let request = |target| arp(1, SENDER, target);
    let answer = icmpv6(32, 255, TAKER6, ALL_NODES, &neighbour(136, TAKER6));
    let all_nodes = [0x33, 0x33, 0, 0, 0, 1];
    vec![
        sent(
            "host to container",
            PARENT,
            CONTAINER,
            &ip,
            reflected(CONTAINER),
        ),
        sent(
            "container to host",
            CONTAINER,
            PARENT,
            &ip,
            reflected(PARENT),
        ),
        sent(
            "container to the trunk's MAC",
            CONTAINER,
            TRUNK,
            &ip,
            reflected(PARENT),
        ),
        sent(
            "host asks for a container",
            PARENT,
            BROADCAST,
            &request(TAKER),
            reflected(CONTAINER),
        ),
        sent(
            "container asks for the host",
            CONTAINER,
            BROADCAST,
            &request([10, 0, 10, 250]),
            reflected(PARENT),
        ),
        sent(
            "host solicits a container",
            PARENT,
            taker_group,
            &solicitation(SENDER6, TAKER6),
            reflected(CONTAINER),
        ),
        sent(
            "container to a macvlan of the host",
            CONTAINER,
            SHIM,
            &ip,
            reflected(SHIM),
        ),
        sent(
            "a macvlan of the host to a container",
            SHIM,
            CONTAINER,
            &ip,
            reflected(CONTAINER),
        ),
        sent("host to its own macvlan", PARENT, SHIM, &ip, Pass),
        sent("host to a MAC that stands by", PARENT, STANDBY, &ip, Pass),
        sent(
            "host asks for an address that is down",
            PARENT,
            BROADCAST,
            &request([10, 0, 10, 78]),
            Pass,
        ),
        sent(
            "host's DHCP reply",
            PARENT,
            BROADCAST,
            &udp(0x45, 0, ALL, TO_CLIENT, &dhcp(2, CONTAINER)),
            Pass,
        ),
        sent(
            "host's gratuitous ARP",
            PARENT,
            BROADCAST,
            &arp(1, ABSENT, ABSENT),
            copied(BROADCAST),
        ),
        sent(
            "container's gratuitous ARP",
            CONTAINER,
            BROADCAST,
            &arp(2, TAKER, TAKER),
            copied(PARENT),
        ),
        sent(
            "container's advertisement",
            CONTAINER,
            all_nodes,
            &answer,
            copied(PARENT),
        ),
        sent(
            "host's advertisement",
            PARENT,
            all_nodes,
            &answer,
            copied(all_nodes),
        ),
        sent("container to the wire", CONTAINER, NOBODY, &ip, Pass),
        sent("host to the wire", PARENT, NOBODY, &ip, Pass),
        sent("container to container", CONTAINER, SIBLING, &ip, Pass),
        sent(
            "container asks for a container",
            CONTAINER,
            BROADCAST,
            &request([10, 0, 10, 3]),
            Pass,
        ),
        sent(
            "host asks the wire",
            PARENT,
            BROADCAST,
            &request(ABSENT),
            Pass,
        ),
        sent(
            "container probes its own address",
            CONTAINER,
            BROADCAST,
            &arp(1, [0; 4], TAKER),
            Pass,
        ),
        sent(
            "container's own address detection",
            CONTAINER,
            taker_group,
            &solicitation([0; 16], TAKER6),
            Pass,
        ),
        sent("host to a MAC that two have", PARENT, TWICE, &ip, Pass),
        sent("a stranger to a container", NOBODY, CONTAINER, &ip, Pass),
        sent(
            "a stranger's gratuitous ARP",
            NOBODY,
            BROADCAST,
            &arp(1, ABSENT, ABSENT),
            Pass,
        ),
        sent(
            "host's mDNS",
            PARENT,
            [1, 0, 0x5e, 0, 0, 0xfb],
            &udp(0x45, 0, [224, 0, 0, 251], MDNS, &[0; 40]),
            Pass,
        ),
        named("another VLAN", CONTAINER, GUESTS, &ip, Pass),
    ]
}

//! Group frames that exceed the limits of their VLAN.

use vlanfast_common::{Reason, Verdict};

use crate::{
    cases::{
        frame_case::{FrameCase, STEERED, named},
        steering::steering,
    },
    fixtures::tables::{CONTAINER, FOREIGN, GUESTS, PARENT, PORT, SIBLING, TRUNK, TWICE},
    net::{messages::*, packet::BROADCAST},
};

/// Frames over the storm limit. The first frame of each test used up the limit.
#[rustfmt::skip]
pub fn over_the_limit() -> Vec<FrameCase> {
    use Verdict::{Drop, Pass};
    let request = arp(1, SENDER, ABSENT);
    let solicitation = solicitation(SENDER6, ABSENT6);
    let (_, group) = group(ABSENT6);
    let sent = |name, rest: &[u8], verdict| named(name, BROADCAST, 10, rest, verdict);
    vec![
        sent("ARP request for an absent host", &request, Drop(Reason::Storm)),
        sent("ARP probe for an absent host", &arp(1, [0; 4], ABSENT), Drop(Reason::Storm)),
        named("solicitation for an absent host", group, 10, &solicitation, Drop(Reason::Storm)),
        sent("ARP request for a container", &arp(1, SENDER, ENDPOINT), STEERED),
        sent("for an address on another device", &arp(1, SENDER, [10, 0, 10, 77]), Pass),
        sent("for an address whose device is down", &arp(1, SENDER, [10, 0, 10, 78]), Pass),
        sent("for a conflicting address", &arp(1, SENDER, [10, 0, 10, 66]), Verdict::Conflict),
        sent("gratuitous ARP", &arp(1, ABSENT, ABSENT), Pass),
        sent("ARP reply", &arp(2, SENDER, ABSENT), Pass),
        sent("DHCP request", &udp(0x45, 0, ALL, [0, 68, 0, 67], &dhcp(1, NOBODY)), Pass),
        named("ARP request by unicast", TRUNK, 10, &request, Pass),
        named("router advertisement", ALL_NODES_MAC, 10, &advertisement(), Pass),
        named("neighbour advertisement", ALL_NODES_MAC, 10, &icmpv6(32, 255, ABSENT6, ALL_NODES, &neighbour(136, ABSENT6)), Pass),
        named("on a VLAN with guests", BROADCAST, GUESTS, &request, Pass),
        named("on a bridge's VLAN", BROADCAST, PORT, &request, Pass),
    ]
}

/// Frames over the limit for targets on this host that cannot be steered. The first frame used up the limit.
#[rustfmt::skip]
pub fn over_the_limit_for_some() -> Vec<FrameCase> {
    let storm = Verdict::Drop(Reason::Storm);
    let sent = |name, rest: &[u8], verdict| named(name, BROADCAST, 10, rest, verdict);
    let own = |name, from: [u8; 6], target, verdict| {
        let mut own = sent(name, &arp(1, SENDER, target), verdict);
        own.bytes[6..12].copy_from_slice(&from);
        own
    };
    let (_, endpoint_group) = group(ENDPOINT6);
    vec![
        sent("for a conflicting address", &arp(1, SENDER, [10, 0, 10, 66]), storm),
        sent("for an address that is down", &arp(1, SENDER, [10, 0, 10, 78]), storm),
        sent("for an address elsewhere", &arp(1, SENDER, [10, 0, 10, 77]), storm),
        sent("for an address of the wire's", &arp(1, SENDER, FOREIGN), storm),
        sent("from an address of another here", &arp(1, [10, 0, 10, 3], ENDPOINT), storm),
        named("solicitation from an address of one here", endpoint_group, 10, &solicitation(ENDPOINT6, ENDPOINT6), storm),
        own("a container's own", SIBLING, ENDPOINT, storm),
        own("the host's own", PARENT, ENDPOINT, storm),
        // Each kind of frame has a bucket of its own.
        own("the host's own, for an absent host", PARENT, ABSENT, Verdict::Pass),
        sent("for an absent host", &arp(1, SENDER, ABSENT), Verdict::Pass),
        sent("for a container", &arp(1, SENDER, ENDPOINT), STEERED),
        named("on a VLAN with guests", BROADCAST, GUESTS, &arp(1, ENDPOINT, ENDPOINT), Verdict::Pass),
    ]
}

/// Frames over the limit for all other group traffic. The first frame used up the limit.
#[rustfmt::skip]
pub fn over_the_groups_limit() -> Vec<FrameCase> {
    let group_storm = Verdict::Drop(Reason::Group);
    let mut others = steering();
    others.retain(|frame| frame.verdict == Verdict::Pass && frame.bytes[0] & 1 == 1);
    others.retain(|frame| frame.bytes[12..16] == [0x81, 0, 0, 10]);
    let is_request = |name: &str| {
        let words = [
            "request for an",
            "request, reflected",
            "request from",
            "solicitation from",
        ];
        words.iter().any(|word| name.contains(word)) || name == "ARP request for a container"
    };
    others.retain(|frame| !is_request(frame.name));
    others
        .iter_mut()
        .for_each(|frame| frame.verdict = group_storm);
    let sent = |name, rest: &[u8], verdict| named(name, BROADCAST, 10, rest, verdict);
    let unlimited = [
        sent("for a container", &arp(1, SENDER, ENDPOINT), STEERED),
        sent("for an absent host", &arp(1, SENDER, ABSENT), Verdict::Pass),
        sent("a DHCP reply to one here", &udp(0x45, 0, ALL, TO_CLIENT, &dhcp(2, CONTAINER)), STEERED),
        sent("a DHCP reply to two", &udp(0x45, 0, ALL, TO_CLIENT, &dhcp(2, TWICE)), group_storm),
        named("gratuitous ARP on a bridge's VLAN", BROADCAST, PORT, &arp(1, ENDPOINT, ENDPOINT), Verdict::Pass),
        named("unicast", CONTAINER, 10, &[8, 0, 0x45], Verdict::Pass),
    ];
    [others, unlimited.into()].concat()
}

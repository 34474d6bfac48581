//! Frames in which a sender claims an address, sent by unicast or to a group.

use vlanfast_common::Verdict;

use crate::{
    cases::frame_case::*,
    fixtures::tables::{CLAIMED, CONTAINER, HOST, HOST6, NEW, PARENT, SIBLING, UNSURE},
    net::{
        messages::{
            ABSENT, ALL_NODES, ALL_NODES_MAC, ENDPOINT, ENDPOINT6, SENDER, SENDER6, arp, icmpv6,
            neighbour,
        },
        packet::BROADCAST,
    },
};

/// Claims that are sent by unicast: ARP replies and neighbour advertisements.
#[rustfmt::skip]
pub fn claims() -> Vec<FrameCase> {
    use Verdict::Pass;
    let says = |name, operation, sender, verdict| {
        sent(
            name,
            CONTAINER,
            PARENT,
            &arp(operation, sender, HOST),
            verdict,
        )
    };
    let tells = |name, from, message: &[u8], verdict| {
        sent(
            name,
            CONTAINER,
            PARENT,
            &icmpv6(32, 255, from, HOST6, message),
            verdict,
        )
    };
    let mut of_ieee = arp(2, SENDER, HOST);
    of_ieee[3] = 6;
    let mut for_another = says("container answers for another MAC", 2, ENDPOINT, Pass);
    for_another.bytes[26..32].copy_from_slice(&SIBLING);
    let hidden = [
        &[0x86, 0xdd, 0x60, 0, 0, 0, 0, 40, 60, 255][..],
        &SENDER6,
        &HOST6,
        &[58, 0, 1, 4, 0, 0, 0, 0],
        &neighbour(136, SENDER6),
    ]
    .concat();
    vec![
        says("container answers the host", 2, ENDPOINT, reflected(PARENT)),
        says("container asks the host alone", 1, ENDPOINT, reflected(PARENT)),
        says("container answers for the wire", 2, SENDER, Pass),
        says("container answers for another", 2, PEERS, Pass),
        says("container answers for what is not sure", 2, UNSURE, Pass),
        says("container answers for what the wire claims", 2, CLAIMED, Pass),
        says("container asks the host alone by the wire's address", 1, SENDER, Pass),
        for_another,
        sent("container answers by IEEE 802", CONTAINER, PARENT, &of_ieee, Pass),
        sent("container's ARP that is no IPv4's", CONTAINER, PARENT, &[8, 6, 0, 1, 0, 5], Pass),
        tells("container tells the host", ENDPOINT6, &neighbour(136, ENDPOINT6), reflected(PARENT)),
        tells("container tells of another", ENDPOINT6, &neighbour(136, SENDER6), Pass),
        tells("container solicits the host alone", ENDPOINT6, &neighbour(135, HOST6), reflected(PARENT)),
        tells("container solicits as another", SENDER6, &neighbour(135, HOST6), Pass),
        tells("container is a router", ENDPOINT6, &neighbour(134, ENDPOINT6), Pass),
        sent("container tells behind an option", CONTAINER, PARENT, &hidden, Pass),
        sent("host answers", PARENT, CONTAINER, &arp(2, HOST, ENDPOINT), reflected(CONTAINER)),
        sent("host answers for another device", PARENT, CONTAINER, &arp(2, ELSEWHERE, ENDPOINT), reflected(CONTAINER)),
        sent("host answers for the wire", PARENT, CONTAINER, &arp(2, SENDER, ENDPOINT), reflected(CONTAINER)),
        sent("host answers for a container", PARENT, CONTAINER, &arp(2, PEERS, ENDPOINT), Pass),
    ]
}

/// Claims that are sent to a group: gratuitous ARP and unsolicited neighbour advertisements.
#[rustfmt::skip]
pub fn announcements() -> Vec<FrameCase> {
    use Verdict::Pass;
    let tells = |name, from, address, verdict| {
        sent(name, from, BROADCAST, &arp(1, address, address), verdict)
    };
    let advertises = |name, from, address: [u8; 16], verdict| {
        let message = icmpv6(32, 255, address, ALL_NODES, &neighbour(136, address));
        sent(name, from, ALL_NODES_MAC, &message, verdict)
    };
    vec![
        tells("host's gratuitous ARP", PARENT, HOST, cloned(BROADCAST)),
        tells("host's gratuitous ARP by a new MAC", NEW, HOST, cloned(BROADCAST)),
        tells("host's gratuitous ARP of a new address", PARENT, ABSENT, cloned(BROADCAST)),
        tells("host's gratuitous ARP of a container's address", PARENT, PEERS, Pass),
        tells("container's gratuitous ARP", CONTAINER, ENDPOINT, cloned(PARENT)),
        tells("container's gratuitous ARP by a new MAC", NEW, ENDPOINT, cloned(PARENT)),
        tells("container's gratuitous ARP of another's address", CONTAINER, PEERS, Pass),
        tells("container's gratuitous ARP of the host's address", CONTAINER, HOST, Pass),
        tells("container's gratuitous ARP of an unknown address", CONTAINER, ABSENT, Pass),
        tells("container's gratuitous ARP of what is not sure", CONTAINER, UNSURE, Pass),
        tells("gratuitous ARP of what is not sure by a new MAC", NEW, UNSURE, Pass),
        tells("gratuitous ARP of a conflicting address by a new MAC", NEW, CONFLICTING, Pass),
        tells("a stranger's gratuitous ARP", NEW, ABSENT, Pass),
        sent("container's gratuitous reply", CONTAINER, BROADCAST, &arp(2, ENDPOINT, ENDPOINT), cloned(PARENT)),
        advertises("container's advertisement", CONTAINER, ENDPOINT6, cloned(PARENT)),
        advertises("container's advertisement by a new MAC", NEW, ENDPOINT6, cloned(PARENT)),
        advertises("host's advertisement", PARENT, HOST6, cloned(ALL_NODES_MAC)),
        advertises("host's advertisement by a new MAC", NEW, HOST6, cloned(ALL_NODES_MAC)),
        advertises("container's advertisement of the host's", CONTAINER, HOST6, Pass),
    ]
}

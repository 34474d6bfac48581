//! The frames that steering and `--shed` decide about, each with its verdict over a
//! [`TableFixture`](crate::fixtures::tables::TableFixture): frames for one endpoint, and frames that only look like
//! one.

use vlanfast_common::{
    Mac, Reason,
    Verdict::{self, Conflict, Drop, Pass},
};

use crate::{
    cases::frame_case::{FrameCase, STEERED, named},
    fixtures::tables::{
        ASSIGNED, CLAIMED, CONTAINER, FOREIGN, GUESTS, NESTED, PARENT, PORT, TRUNK, TWICE, UNSURE,
    },
    net::{
        messages::*,
        packet::{BROADCAST, frame, tag},
    },
};

/// Verdicts with steering on, within the storm limit.
pub fn steering() -> Vec<FrameCase> {
    [
        arp_frames(),
        neighbour_discovery(),
        dhcp_frames(),
        other_groups(),
    ]
    .concat()
}

fn sent(name: &'static str, rest: &[u8], verdict: Verdict) -> FrameCase {
    named(name, BROADCAST, 10, rest, verdict)
}

fn raw(name: &'static str, bytes: Vec<u8>, verdict: Verdict) -> FrameCase {
    FrameCase {
        name,
        bytes,
        verdict,
    }
}

#[rustfmt::skip]
fn arp_frames() -> Vec<FrameCase> {
    let host = Verdict::Steer { mac: Mac(PARENT) };
    let request = arp(1, SENDER, ENDPOINT);
    let twice = [&tag(5, 0)[..], &tag(3, 10), &request].concat();
    let broadcast = sent("", &request, Pass).bytes;
    let mut reflected = broadcast.clone();
    reflected[6..12].copy_from_slice(&CONTAINER);
    vec![
        sent("ARP request for a container", &request, STEERED),
        sent("ARP request for the host", &arp(1, SENDER, [10, 0, 10, 250]), host),
        sent("ARP probe", &arp(1, [0; 4], ENDPOINT), STEERED),
        raw("untagged ARP request for a container", frame(BROADCAST, &request, 60), STEERED),
        raw("ARP request behind two tags of which one counts", frame(BROADCAST, &twice, 68), STEERED),
        sent("ARP request for a conflicting address", &arp(1, SENDER, [10, 0, 10, 66]), Conflict),
        sent("ARP request for an address of the wire's", &arp(1, SENDER, FOREIGN), Pass),
        sent("ARP request for an address that is not sure", &arp(1, SENDER, UNSURE), STEERED),
        sent("ARP request for an address that Docker gave", &arp(1, SENDER, ASSIGNED), STEERED),
        sent("ARP request for an address that is claimed", &arp(1, SENDER, CLAIMED), STEERED),
        sent("ARP request from an address of another here", &arp(1, [10, 0, 10, 3], ENDPOINT), Pass),
        sent("ARP request for an absent host", &arp(1, SENDER, ABSENT), Pass),
        sent("gratuitous ARP request", &arp(1, ENDPOINT, ENDPOINT), Pass),
        sent("gratuitous ARP reply", &arp(2, ENDPOINT, ENDPOINT), Pass),
        sent("ARP reply by broadcast", &arp(2, SENDER, ENDPOINT), Pass),
        named("ARP request by unicast", TRUNK, 10, &request, Pass),
        raw("ARP request that ends early", broadcast[..40].into(), Pass),
        sent("ARP over something else", &[&[8, 6, 0, 6][..], &request[4..]].concat(), Pass),
        sent("InARP", &arp(8, SENDER, ENDPOINT), Pass),
        raw("a container's own ARP request, reflected", reflected, Pass),
        named("ARP request on a bridge's VLAN", BROADCAST, PORT, &request, Pass),
        named("ARP request on a VLAN without device", BROADCAST, 99, &request, Pass),
        named("ARP request on a VLAN inside a container", BROADCAST, NESTED, &request, Pass),
        named("ARP request on a VLAN with guests", BROADCAST, GUESTS, &request, STEERED),
        named("VRRP or CARP", [1, 0, 0x5e, 0, 0, 0x12], 10, &vrrp(), Pass),
    ]
}

#[rustfmt::skip]
fn neighbour_discovery() -> Vec<FrameCase> {
    let (_, solicited) = group(ENDPOINT6);
    let v6 = |name, rest: &[u8], verdict| named(name, solicited, 10, rest, verdict);
    let probe6 = solicitation([0; 16], ENDPOINT6);
    vec![
        v6("solicitation for a container", &solicitation(SENDER6, ENDPOINT6), STEERED),
        v6("duplicate address detection", &probe6, STEERED),
        v6("solicitation from an address of one here", &solicitation(ENDPOINT6, ENDPOINT6), Pass),
        v6("solicitation that was forwarded", &icmpv6(32, 254, SENDER6, group(ENDPOINT6).0, &neighbour(135, ENDPOINT6)), Pass),
        v6("solicitation without a target", &icmpv6(20, 255, SENDER6, group(ENDPOINT6).0, &neighbour(135, ENDPOINT6)), Pass),
        v6("solicitation to another group", &icmpv6(32, 255, SENDER6, group(ABSENT6).0, &neighbour(135, ENDPOINT6)), Pass),
        named("solicitation to all nodes", ALL_NODES_MAC, 10, &probe6, Pass),
        v6("neighbour advertisement", &icmpv6(32, 255, ENDPOINT6, group(ENDPOINT6).0, &neighbour(136, ENDPOINT6)), Pass),
        named("unsolicited neighbour advertisement", ALL_NODES_MAC, 10, &icmpv6(32, 255, ENDPOINT6, ALL_NODES, &neighbour(136, ENDPOINT6)), Pass),
        named("router advertisement", ALL_NODES_MAC, 10, &advertisement(), Pass),
        named("router solicitation", [0x33, 0x33, 0, 0, 0, 2], 10, &icmpv6(16, 255, SENDER6, ALL_NODES, &[133, 0, 0, 0, 0, 0, 0, 0]), Pass),
        named("MLD report", [0x33, 0x33, 0, 0, 0, 0x16], 10, &mld(), Pass),
    ]
}

#[rustfmt::skip]
fn dhcp_frames() -> Vec<FrameCase> {
    let reply = udp(0x45, 0, ALL, TO_CLIENT, &dhcp(2, CONTAINER));
    vec![
        sent("DHCP reply by broadcast", &reply, STEERED),
        sent("DHCP reply for a conflicting MAC", &udp(0x45, 0, ALL, TO_CLIENT, &dhcp(2, TWICE)), Conflict),
        sent("DHCP request", &udp(0x45, 0, ALL, [0, 68, 0, 67], &dhcp(1, CONTAINER)), Pass),
        sent("DHCP reply for an absent host", &udp(0x45, 0, ALL, TO_CLIENT, &dhcp(2, NOBODY)), Pass),
        sent("DHCP reply in fragments", &udp(0x45, 0x20, ALL, TO_CLIENT, &dhcp(2, CONTAINER)), Pass),
        sent("DHCP reply behind options", &udp(0x46, 0, ALL, TO_CLIENT, &dhcp(2, CONTAINER)), Pass),
        sent("DHCP's ports without a reply", &udp(0x45, 0, ALL, TO_CLIENT, &dhcp(1, CONTAINER)), Pass),
    ]
}

#[rustfmt::skip]
fn other_groups() -> Vec<FrameCase> {
    vec![
        named("mDNS over IPv4", [1, 0, 0x5e, 0, 0, 0xfb], 10, &udp(0x45, 0, [224, 0, 0, 251], MDNS, &[0; 40]), Pass),
        named("mDNS over IPv6", [0x33, 0x33, 0, 0, 0, 0xfb], 10, &mdns6(), Pass),
        raw("LLDP", frame([1, 0x80, 0xc2, 0, 0, 0x0e], &[0x88, 0xcc, 2, 7, 4], 60), Pass),
    ]
}

/// Verdicts under `--shed mac`.
#[rustfmt::skip]
pub fn shedding() -> Vec<FrameCase> {
    let ip = [8, 0, 0x45];
    let vlan = Drop(Reason::ShedVlan);
    let mac = Drop(Reason::ShedMac);
    let raw = |name, to, rest: &[u8], verdict| FrameCase {
        name,
        bytes: frame(to, rest, 64),
        verdict,
    };
    vec![
        named("unicast on a VLAN without device", TRUNK, 99, &ip, vlan),
        named("broadcast on a VLAN without device", BROADCAST, 99, &arp(1, SENDER, ENDPOINT), vlan),
        named("a VLAN inside a container", NOBODY, NESTED, &ip, Pass),
        named("unknown MAC", NOBODY, 10, &ip, mac),
        raw("unknown MAC, untagged", NOBODY, &ip, Pass),
        named("unknown MAC behind two tags", NOBODY, 10, &[&tag(0, 100)[..], &ip].concat(), Pass),
        named("a container's MAC", CONTAINER, 10, &ip, Pass),
        named("the parent's MAC", PARENT, 10, &ip, Pass),
        named("the trunk's MAC on a VLAN", TRUNK, 10, &ip, Pass),
        named("the parent's MAC on another VLAN", PARENT, GUESTS, &ip, mac),
        named("unknown MAC on a bridge's VLAN", NOBODY, PORT, &ip, Pass),
        named("a group", [1, 0, 0x5e, 0, 0, 1], 10, &ip, Pass),
        raw("802.1ad", NOBODY, &[&[0x88, 0xa8, 0, 99][..], &ip].concat(), Pass),
        FrameCase { name: "a tag that ends early", bytes: frame(NOBODY, &[0x81, 0], 14), verdict: Pass, },
    ]
}

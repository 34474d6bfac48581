//! Packets to a router, with their verdicts under `--shortcut allow`.

use vlanfast_common::{Mac, Verdict, Vid};

use crate::{
    cases::{
        frame_case::{FrameCase, named},
        packets::{FAR, FAR6},
    },
    fixtures::tables::{CONTAINER, GUESTS, PARENT, PORT, SIBLING},
    net::{messages::*, packet::MULTICAST},
};

/// No device on this host has this MAC.
const ROUTER: [u8; 6] = NOBODY;

/// Outgoing packets on VLAN 10 with their verdicts.
#[rustfmt::skip]
pub fn shortcutting() -> Vec<FrameCase> {
    use Verdict::Pass;
    let taken = Verdict::Shortcut {
        vid: Vid::new(GUESTS),
        mac: Mac(CONTAINER),
    };
    let from = |from: [u8; 6], mut decided: FrameCase| {
        decided.bytes[6..12].copy_from_slice(&from);
        decided
    };
    let to = |name, destination, rest: &[u8], verdict| {
        from(CONTAINER, named(name, destination, 10, rest, verdict))
    };
    let sent = |name, rest: &[u8], verdict| to(name, ROUTER, rest, verdict);
    let plain = ipv4(|_| {});
    let plain6 = ipv6(|_| {});
    vec![
        sent("IPv4", &plain, taken),
        sent("TCP over IPv4", &ipv4(|ip| ip[9] = 6), taken),
        sent("ICMP", &ipv4(|ip| ip[9] = 1), taken),
        sent("IPv4 with DSCP and ECN", &ipv4(|ip| ip[1] = 0xbb), taken),
        sent("don't fragment", &ipv4(|ip| ip[6] = 0x40), taken),
        sent("TTL 2", &ipv4(|ip| ip[8] = 2), taken),
        sent("TTL 255", &ipv4(|ip| ip[8] = 255), taken),
        sent("a checksum that carries over", &ipv4(carries_over), taken),
        sent("as large as fits", &large(1400), taken),
        sent("IPv6", &plain6, taken),
        sent("TCP over IPv6", &ipv6(|ip| ip[6] = 6), taken),
        sent("ICMPv6", &ipv6(|ip| ip[6] = 58), taken),
        sent("IPv6 with a traffic class", &ipv6(|ip| ip[0] = 0x6b), taken),
        sent("hop limit 2", &ipv6(|ip| ip[7] = 2), taken),
        from(PARENT, named("the host's", ROUTER, 10, &plain, Pass)),
        from(NOBODY, named("a stranger's", ROUTER, 10, &plain, Pass)),
        sent("TTL 1", &ipv4(|ip| ip[8] = 1), Pass),
        sent("TTL 0", &ipv4(|ip| ip[8] = 0), Pass),
        sent("IPv4 with options", &ipv4(|ip| ip[0] = 0x46), Pass),
        sent("the first fragment", &ipv4(|ip| ip[6] = 0x20), Pass),
        sent("the last fragment", &ipv4(|ip| ip[7] = 4), Pass),
        sent("from a link-local address", &ipv4(link_local), Pass),
        sent("from another's address", &ipv4(|ip| ip[15] = 3), Pass),
        sent("from an unknown IPv6 address", &ipv6(|ip| ip[23] = 9), Pass),
        sent("too large", &large(1401), Pass),
        sent("for somewhere else", &ipv4(|ip| ip[18] = 31), Pass),
        sent("for a VLAN that has gone", &ipv4(|ip| ip[18] = 40), Pass),
        sent("IPv4 that ends early", &plain[..12], Pass),
        sent("ARP to the router", &arp(1, ENDPOINT, FAR), Pass),
        sent("hop limit 1", &ipv6(|ip| ip[7] = 1), Pass),
        sent("hop-by-hop options", &ipv6(|ip| ip[6] = 0), Pass),
        sent("a fragment of IPv6", &ipv6(|ip| ip[6] = 44), Pass),
        sent("from a link-local IPv6 address", &ipv6(|ip| ip[8..10].copy_from_slice(&[0xfe, 0x80])), Pass),
        sent("IPv6 for somewhere else", &ipv6(|ip| ip[39] = 3), Pass),
        to("to a container's MAC", SIBLING, &plain, Pass),
        to("to a group", MULTICAST, &plain, Pass),
        from(CONTAINER, named("another VLAN", ROUTER, PORT, &plain, Pass)),
        sent("behind two tags", &[&[0x81, 0, 0, 30][..], &plain].concat(), Pass),
    ]
}

/// Builds a UDP datagram for the far container from the EtherType on, after a change to its IPv4 header.
fn ipv4(change: impl Fn(&mut [u8])) -> Vec<u8> {
    let mut frame = udp(0x45, 0, FAR, [0x30, 0, 0x30, 1], &[0; 12]);
    let packet = &mut frame[2..];
    packet[12..16].copy_from_slice(&ENDPOINT);
    change(packet);
    let checksum = ipv4_checksum(packet);
    packet[10..12].copy_from_slice(&checksum);
    frame
}

/// Builds a packet with a total length.
fn large(length: usize) -> Vec<u8> {
    let mut frame = ipv4(|ip| ip[2..4].copy_from_slice(&(length as u16).to_be_bytes()));
    frame.resize(2 + length, 0x55);
    frame
}

/// Builds a packet whose identification makes the checksum 0xff00 before the hop, and 0 with a carry behind it.
fn carries_over(packet: &mut [u8]) {
    packet[4..6].fill(0);
    let [high, low] = ipv4_checksum(packet);
    let wanted = !0xff00u16;
    let rest = !u16::from_be_bytes([high, low]);
    // The checksum is computed in ones' complement arithmetic.
    let (difference, borrowed) = wanted.overflowing_sub(rest);
    let id = difference - u16::from(borrowed);
    packet[4..6].copy_from_slice(&id.to_be_bytes());
    assert_eq!(ipv4_checksum(packet), [0xff, 0]);
}

fn link_local(packet: &mut [u8]) {
    packet[12..14].copy_from_slice(&[169, 254]);
}

/// Builds an IPv6 UDP packet for the far container from the EtherType on, after a change to its header.
fn ipv6(change: impl Fn(&mut [u8])) -> Vec<u8> {
    let start = [0x60, 0, 0, 0, 0, 20, 17, 64];
    let mut packet = [&start[..], &ENDPOINT6, &FAR6, &[0; 20]].concat();
    change(&mut packet);
    [&[0x86, 0xdd][..], &packet].concat()
}

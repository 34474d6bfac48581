//! Messages that are sent to groups, from the EtherType on.

use crate::net::packet::ROUTER_MAC;

pub const ENDPOINT: [u8; 4] = [10, 0, 10, 2];
pub const ABSENT: [u8; 4] = [10, 0, 10, 99];
pub const SENDER: [u8; 4] = [10, 0, 10, 1];
/// The container's address fd00::1:2, and fd00::1:99.
pub const ENDPOINT6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2];
pub const ABSENT6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0x99];
pub const SENDER6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
pub const NOBODY: [u8; 6] = [0x02, 0, 0, 0, 9, 9];
/// The group ff02::1 and its MAC.
pub const ALL_NODES: [u8; 16] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
pub const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];

/// Builds an ARP message over Ethernet and IPv4 with an operation.
pub fn arp(operation: u8, sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let fixed = [8, 6, 0, 1, 8, 0, 6, 4, 0, operation];
    [&fixed[..], &ROUTER_MAC, &sender, &[0; 6], &target].concat()
}

/// Returns the solicited-node group of an address, and its MAC.
pub fn group(target: [u8; 16]) -> ([u8; 16], [u8; 6]) {
    let [.., a, b, c] = target;
    let address = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c];
    (address, [0x33, 0x33, 0xff, a, b, c])
}

/// Builds an ICMPv6 message behind an IPv6 header with a payload length and a hop limit. The checksum is right, so
/// that the kernel answers.
pub fn icmpv6(length: u8, hops: u8, from: [u8; 16], to: [u8; 16], message: &[u8]) -> Vec<u8> {
    let header = [0x86, 0xdd, 0x60, 0, 0, 0, 0, length, 58, hops];
    let mut message = message.to_vec();
    // The checksum follows RFC 4443 clause 2.3, over the pseudo-header of RFC 8200 clause 8.1.
    let pseudo = [&from[..], &to, &[0, 0, 0, length, 0, 0, 0, 58], &message].concat();
    let words = pseudo.chunks(2);
    let sum = words.fold(0u32, |sum, word| {
        sum + u32::from(word[0]) * 256 + u32::from(*word.get(1).unwrap_or(&0))
    });
    let folded = (sum & 0xffff) + (sum >> 16);
    message[2..4].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    [&header[..], &from, &to, &message].concat()
}

/// Builds the body of a neighbour solicitation or advertisement, with the sender's MAC as an option.
pub fn neighbour(kind: u8, target: [u8; 16]) -> Vec<u8> {
    [
        &[kind, 0, 0, 0, 0, 0, 0, 0][..],
        &target,
        &[1, 1],
        &ROUTER_MAC,
    ]
    .concat()
}

/// Builds an unsolicited neighbour advertisement of an address and its MAC, with the Override flag (RFC 4861 clause
/// 7.2.6).
pub fn announcement(address: [u8; 16], mac: [u8; 6]) -> Vec<u8> {
    let body = [&[136, 0, 0, 0, 0x20, 0, 0, 0][..], &address, &[2, 1], &mac].concat();
    icmpv6(32, 255, address, ALL_NODES, &body)
}

pub fn solicitation(from: [u8; 16], target: [u8; 16]) -> Vec<u8> {
    icmpv6(32, 255, from, group(target).0, &neighbour(135, target))
}

/// Builds a UDP datagram in IPv4, with a first byte and a fragment field.
pub fn udp(head: u8, fragment: u8, to: [u8; 4], ports: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let ip = [8, 0, head, 0, 1, 0, 0, 0, fragment, 0, 64, 17, 0, 0];
    let options = vec![0; usize::from(head & 0xf) * 4 - 20];
    [&ip[..], &SENDER, &to, &options, &ports, &[0; 4], payload].concat()
}

/// Returns the header checksum of an IPv4 packet (RFC 791 clause 3.1), and ignores the present one.
pub fn ipv4_checksum(packet: &[u8]) -> [u8; 2] {
    let words = packet[..20].chunks(2).enumerate();
    let sum: u32 = words
        .filter(|(place, _)| *place != 5)
        .map(|(_, word)| u32::from(word[0]) * 256 + u32::from(word[1]))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    (!((folded & 0xffff) + (folded >> 16)) as u16).to_be_bytes()
}

/// Builds a DHCP message for a client with the minimum length.
pub fn dhcp(operation: u8, client: [u8; 6]) -> Vec<u8> {
    let mut message = [&[operation, 1, 6, 0][..], &[0; 24], &client].concat();
    message.resize(300, 0);
    message
}

pub const TO_CLIENT: [u8; 4] = [0, 67, 0, 68];
pub const ALL: [u8; 4] = [255; 4];

/// Builds an MLDv2 report (RFC 3810), which has a hop-by-hop header with the router alert.
pub fn mld() -> Vec<u8> {
    let header = [0x86, 0xdd, 0x60, 0, 0, 0, 0, 36, 0, 1];
    let to = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x16];
    let alert = [58, 0, 5, 2, 0, 0, 1, 0];
    let report = [143, 0, 0, 0, 0, 0, 0, 1, 4, 0, 0, 0];
    [
        &header[..],
        &[0; 16],
        &to,
        &alert,
        &report,
        &group(ENDPOINT6).0,
    ]
    .concat()
}

/// Builds a VRRP message (RFC 5798); CARP uses the same group and protocol.
pub fn vrrp() -> Vec<u8> {
    let ip = [8, 0, 0x45, 0xc0, 0, 40, 0, 0, 0, 0, 255, 112, 0, 0];
    [
        &ip[..],
        &SENDER,
        &[224, 0, 0, 18],
        &[0x21, 51, 100, 1, 0, 1],
    ]
    .concat()
}

/// Builds a query of multicast DNS (RFC 6762) over IPv6.
pub fn mdns6() -> Vec<u8> {
    let ip = [0x86, 0xdd, 0x60, 0, 0, 0, 0, 40, 17, 255];
    let to = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xfb];
    [&ip[..], &SENDER6, &to, &MDNS, &[0; 36]].concat()
}

pub const MDNS: [u8; 4] = [0x14, 0xe9, 0x14, 0xe9];

/// Builds a router advertisement (RFC 4861 clause 4.2).
pub fn advertisement() -> Vec<u8> {
    let message = [134, 0, 0, 0, 64, 0, 0, 30, 0, 0, 0, 0, 0, 0, 0, 0];
    icmpv6(16, 255, SENDER6, ALL_NODES, &message)
}

//! The frames that are injected.

use vlanfast_tests::net::packet;

pub const VID: u16 = 10;
pub const ROUTER: [u8; 4] = [10, 0, 10, 1];
pub const CONTAINER: [u8; 4] = [10, 0, 10, 2];
pub const ROUTER_IPV6: [u8; 16] = [0xfd, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
pub const CONTAINER_MAC: [u8; 6] = [0x02, 0, 0, 0, 1, 2];
pub const TRUNK_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x0a];
/// The MAC of the router's device `wire`.
pub const ROUTER_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x0b];
/// UDP port of the container's reader.
pub const PORT: u16 = 9000;
/// A MAC that nobody has.
pub const NOBODY: [u8; 6] = [0x02, 0, 0, 0, 0xff, 0xff];

/// Whether a datagram has a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Its IP checksum is right.
    Read,
    /// Its IP checksum is wrong: it ends where the container's stack first looks at it. There is no
    /// shorter way that starts as IP, which ipvlan needs to find the container.
    Dropped,
}

/// 64 bytes with a tag: a UDP datagram (RFC 768) with 18 bytes of payload, from the router.
pub fn datagram(destination: [u8; 6], vid: u16, fate: Fate) -> Vec<u8> {
    let mut ip = [
        0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    ip[12..16].copy_from_slice(&ROUTER);
    ip[16..20].copy_from_slice(&CONTAINER);
    let checksum = checksum(&ip);
    let checksum = match fate {
        Fate::Read => checksum,
        Fate::Dropped => checksum ^ 0x5555,
    };
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    let [high, low] = PORT.to_be_bytes();
    let udp = [high, low, high, low, 0, 26, 0, 0];
    packet::frame(
        destination,
        &[&tag(vid)[..], &[8, 0], &ip, &udp].concat(),
        64,
    )
}

/// A broadcast ARP request (RFC 826) of the router's.
pub fn arp_request(vid: u16, target: [u8; 4]) -> Vec<u8> {
    let head = [&tag(vid)[..], &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]].concat();
    let body = [&head[..], &ROUTER_MAC, &ROUTER, &[0; 6], &target].concat();
    packet::frame(packet::BROADCAST, &body, 64)
}

/// A neighbour solicitation (RFC 4861, 4.3) of the router's, to the target's solicited-node multicast
/// address (RFC 4291, 2.7.1), with the router's MAC as its option.
pub fn solicitation(vid: u16, target: [u8; 16]) -> Vec<u8> {
    let [.., a, b, c] = target;
    let group = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c];
    let addresses = [ROUTER_IPV6, group].concat();
    let mut message = [
        &[135, 0, 0, 0, 0, 0, 0, 0][..],
        &target,
        &[1, 1],
        &ROUTER_MAC,
    ]
    .concat();
    // The pseudo-header (RFC 8200, 8.1): addresses, length, next header.
    let pseudo = [&addresses[..], &[0, 0, 0, 32, 0, 0, 0, 58]].concat();
    let sum = checksum(&[&pseudo[..], &message].concat());
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let head = [0x86, 0xdd, 0x60, 0, 0, 0, 0, 32, 58, 255];
    let rest = [&tag(vid)[..], &head, &addresses, &message].concat();
    packet::frame([0x33, 0x33, 0xff, a, b, c], &rest, 64)
}

/// An 802.1Q tag, or none.
fn tag(vid: u16) -> Vec<u8> {
    match vid {
        0 => vec![],
        vid => packet::tag(0, vid).to_vec(),
    }
}

/// The Internet checksum (RFC 1071) of an even number of bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

/// A MAC address as `ip` reads it.
pub fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

//! Packets from the near container to the far one, from the EtherType on, and the same packets as routers change
//! them.

use crate::net::messages::{ENDPOINT, ENDPOINT6, ipv4_checksum};

/// The far container's addresses.
pub const FAR: [u8; 4] = [10, 0, 30, 2];
pub const FAR6: [u8; 16] = [0xfd, 0, 0, 0x30, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];

/// Returns a packet after `hops` routers, from the EtherType on.
pub fn hop(packet: &[u8], hops: u8) -> Vec<u8> {
    let mut packet = packet.to_vec();
    let ip = &mut packet[2..];
    match ip[0] >> 4 {
        4 => {
            ip[8] -= hops;
            let checksum = ipv4_checksum(ip);
            ip[10..12].copy_from_slice(&checksum);
        }
        _ => ip[7] -= hops,
    }
    packet
}

/// An IPv4 packet from the near container to the far one, from the EtherType on.
pub fn ipv4(protocol: u8, identification: u16, payload: &[u8]) -> Vec<u8> {
    let mut ip = vec![0x45, 0, 0, 20 + payload.len() as u8];
    ip.extend(identification.to_be_bytes());
    ip.extend([0x40, 0, 64, protocol, 0, 0]);
    ip.extend([ENDPOINT, FAR].concat());
    let checksum = ipv4_checksum(&ip);
    ip[10..12].copy_from_slice(&checksum);
    [&[8, 0][..], &ip, payload].concat()
}

pub fn ipv6(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let header = [0x60, 0, 0, 0, 0, payload.len() as u8, protocol, 64];
    [&[0x86, 0xdd][..], &header, &ENDPOINT6, &FAR6, payload].concat()
}

pub fn udp(word: u32) -> Vec<u8> {
    let head = [0x30, 0, 0x30, 1, 0, 16, 0, 0];
    [&head[..], &word.to_be_bytes(), &[0x55; 4]].concat()
}

/// The segment has ten bytes of payload, unless it is a SYN.
pub fn tcp(sequence: u32, flags: u8) -> Vec<u8> {
    let payload: &[u8] = match flags & 2 {
        0 => &[0x55; 10],
        _ => &[],
    };
    let ends = [&[0x30, 0, 0x30, 1][..], &sequence.to_be_bytes(), &[0; 4]].concat();
    [&ends[..], &[0x50, flags, 1, 0, 0, 0, 0, 0], payload].concat()
}

pub fn echo(sequence: u8) -> Vec<u8> {
    vec![8, 0, 0, 0, 0, 77, 0, sequence]
}

pub const SYN: u8 = 2;
pub const FIN: u8 = 0x11;
pub const RST: u8 = 4;
pub const ACK: u8 = 0x10;

/// Returns four bytes of a TCP segment's payload, from an offset on, in a packet of their own.
pub fn part(packet: &[u8], offset: u32) -> Vec<u8> {
    let (mut packet, at) = (packet.to_vec(), 2 + 20 + 4);
    let sequence = u32::from_be_bytes(packet[at..at + 4].try_into().unwrap_or_default());
    packet[at..at + 4].copy_from_slice(&(sequence + offset).to_be_bytes());
    packet[2 + 3] -= 6;
    packet.truncate(packet.len() - 6);
    packet
}

/// Returns a TCP segment with another acknowledgement number.
pub fn acknowledging(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    packet[2 + 20 + 8] ^= 1;
    packet
}

pub fn fragment(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    packet[2 + 6] = 0x20;
    packet
}

/// Returns a packet that is larger than the other VLAN's MTU.
pub fn large(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    packet.resize(2 + 1401, 0x55);
    packet
}

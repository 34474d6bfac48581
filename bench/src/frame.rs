//! The frames that are injected.

use vlanfast_tests::packet::{self, tag};

pub const VID: u16 = 10;
pub const ROUTER: [u8; 4] = [10, 0, 10, 1];
pub const CONTAINER: [u8; 4] = [10, 0, 10, 2];
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
    let sum: u32 = ip
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]))
        .sum();
    let checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
    let checksum = match fate {
        Fate::Read => checksum,
        Fate::Dropped => checksum ^ 0x5555,
    };
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    let [high, low] = PORT.to_be_bytes();
    let udp = [high, low, high, low, 0, 26, 0, 0];
    let tag = if vid == 0 {
        vec![]
    } else {
        tag(0, vid).to_vec()
    };
    packet::frame(destination, &[&tag[..], &[8, 0], &ip, &udp].concat(), 64)
}

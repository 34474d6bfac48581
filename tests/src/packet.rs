//! Frames, written down byte by byte, and independently of the parser that they test.

use std::collections::BTreeMap;

pub const HOST: [u8; 6] = [0x02, 0, 0, 0, 0, 0x0a];
pub const PEER: [u8; 6] = [0x02, 0, 0, 0, 0, 0x0b];
pub const MULTICAST: [u8; 6] = [0x33, 0x33, 0xff, 0, 0, 1];
pub const BROADCAST: [u8; 6] = [0xff; 6];

/// What a frame counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cast {
    Unicast,
    Multicast,
    Broadcast,
}

/// Where a frame is counted: the number of the VLAN, or why it has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Row {
    Vlan(u16),
    Service,
    Truncated,
}

/// Packets by cast, and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    pub packets: [u64; 3],
    pub bytes: u64,
}

/// One direction's traffic.
pub type Sums = BTreeMap<Row, Sum>;

/// Adds `count` frames of a length.
pub fn add(sums: &mut Sums, row: Row, cast: Cast, count: u64, length: usize) {
    let sum = sums.entry(row).or_default();
    sum.packets[cast as usize] += count;
    sum.bytes += count * length as u64;
}

/// A frame with what must be counted for it.
#[derive(Clone, Debug)]
pub struct Named {
    pub name: &'static str,
    pub bytes: Vec<u8>,
    pub row: Row,
    pub cast: Cast,
}

/// Addresses, then `rest` (tags, type, payload), then zeroes up to `length`.
pub fn frame(destination: [u8; 6], rest: &[u8], length: usize) -> Vec<u8> {
    let mut bytes = [&destination[..], &PEER, rest].concat();
    bytes.resize(length.max(bytes.len()), 0);
    bytes
}

/// An 802.1Q tag.
pub fn tag(pcp: u8, vid: u16) -> [u8; 4] {
    let [high, low] = vid.to_be_bytes();
    [0x81, 0x00, pcp << 5 | high, low]
}

const IPV4: &[u8] = &[0x08, 0x00, 0x45];
const ARP: &[u8] = &[0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1];
const SOLICITATION: &[u8] = &[0x86, 0xdd, 0x60, 0, 0, 0, 0, 32, 58, 255];

/// The frames that every hook must agree on.
pub fn corpus() -> Vec<Named> {
    use Cast::{Broadcast, Multicast, Unicast};
    use Row::{Service, Truncated, Vlan};

    let tagged = |pcp, vid, rest: &[u8]| [&tag(pcp, vid)[..], rest].concat();
    let dei = [&[0x81, 0x00, 0xf0, 0x14][..], IPV4].concat();
    let q_in_q = [&[0x88, 0xa8, 0, 10][..], &tag(0, 20), IPV4].concat();
    let stacked = [&tag(3, 10)[..], &tag(0, 20), IPV4].concat();
    let triple = [&tag(0, 10)[..], &tag(0, 20), &tag(0, 30), IPV4].concat();
    let priority_first = [&tag(7, 0)[..], &tag(0, 20), IPV4].concat();
    let c_then_s = [&tag(0, 10)[..], &[0x88, 0xa8, 0, 20], IPV4].concat();
    let named = |name, destination, rest: &[u8], length, row, cast| Named {
        name,
        bytes: frame(destination, rest, length),
        row,
        cast,
    };
    vec![
        named("untagged unicast", HOST, IPV4, 60, Vlan(0), Unicast),
        named(
            "untagged broadcast ARP",
            BROADCAST,
            ARP,
            60,
            Vlan(0),
            Broadcast,
        ),
        named(
            "untagged solicitation",
            MULTICAST,
            SOLICITATION,
            86,
            Vlan(0),
            Multicast,
        ),
        named("VLAN 1", HOST, &tagged(0, 1, IPV4), 64, Vlan(1), Unicast),
        named(
            "VLAN 10",
            HOST,
            &tagged(0, 10, IPV4),
            1518,
            Vlan(10),
            Unicast,
        ),
        named(
            "VLAN 4094",
            HOST,
            &tagged(0, 4094, IPV4),
            64,
            Vlan(4094),
            Unicast,
        ),
        named(
            "VLAN 4095, reserved",
            HOST,
            &tagged(0, 4095, IPV4),
            64,
            Vlan(4095),
            Unicast,
        ),
        named(
            "PCP 7 on VLAN 10",
            BROADCAST,
            &tagged(7, 10, ARP),
            64,
            Vlan(10),
            Broadcast,
        ),
        named(
            "PCP 7 and DEI on VLAN 20",
            HOST,
            &dei,
            64,
            Vlan(20),
            Unicast,
        ),
        named(
            "solicitation on VLAN 20",
            MULTICAST,
            &tagged(0, 20, SOLICITATION),
            90,
            Vlan(20),
            Multicast,
        ),
        named(
            "priority tag",
            HOST,
            &tagged(5, 0, IPV4),
            64,
            Vlan(0),
            Unicast,
        ),
        named(
            "priority tag before VLAN 20",
            HOST,
            &priority_first,
            68,
            Vlan(20),
            Unicast,
        ),
        named("802.1ad", HOST, &q_in_q, 68, Service, Unicast),
        named("802.1Q in 802.1Q", HOST, &stacked, 68, Vlan(10), Unicast),
        named("802.1ad in 802.1Q", HOST, &c_then_s, 68, Vlan(10), Unicast),
        named("three tags", BROADCAST, &triple, 72, Vlan(10), Broadcast),
        named(
            "spanning tree, 802.3",
            [1, 0x80, 0xc2, 0, 0, 0],
            &[0, 38, 0x42, 0x42, 3],
            60,
            Vlan(0),
            Multicast,
        ),
        named(
            "802.3 on VLAN 10",
            [1, 0x80, 0xc2, 0, 0, 0],
            &tagged(0, 10, &[0, 38, 0x42, 0x42, 3]),
            64,
            Vlan(10),
            Multicast,
        ),
        named(
            "unknown type",
            HOST,
            &[0x88, 0xb5, 1, 2, 3],
            60,
            Vlan(0),
            Unicast,
        ),
        named(
            "only addresses and a type",
            HOST,
            &[0x88, 0xb5],
            14,
            Vlan(0),
            Unicast,
        ),
        named(
            "ends behind the TPID",
            HOST,
            &[0x81, 0x00],
            14,
            Truncated,
            Unicast,
        ),
        named(
            "ends within the TCI",
            HOST,
            &[0x81, 0x00, 0x00],
            15,
            Truncated,
            Unicast,
        ),
        named(
            "ends behind the tag",
            HOST,
            &tag(0, 10),
            16,
            Vlan(10),
            Unicast,
        ),
        named(
            "ends within the second tag",
            HOST,
            &[&tag(0, 0)[..], &[0x81, 0, 0]].concat(),
            19,
            Truncated,
            Unicast,
        ),
    ]
}

//! Frames, built byte by byte and independently of the parser that they test.

pub const TRUNK_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x0a];
pub const ROUTER_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x0b];
pub const MULTICAST: [u8; 6] = [0x33, 0x33, 0xff, 0, 0, 1];
pub const BROADCAST: [u8; 6] = [0xff; 6];

/// Builds a frame: addresses, then `rest` (tags, type, payload), then zeroes up to `length`.
pub fn frame(destination: [u8; 6], rest: &[u8], length: usize) -> Vec<u8> {
    let mut bytes = [&destination[..], &ROUTER_MAC, rest].concat();
    bytes.resize(length.max(bytes.len()), 0);
    bytes
}

/// Builds an 802.1Q tag.
pub fn tag(pcp: u8, vid: u16) -> [u8; 4] {
    let [high, low] = vid.to_be_bytes();
    [0x81, 0x00, pcp << 5 | high, low]
}

//! What a router does to a packet that it forwards (RFC 1812 clause 5.2, RFC 8200 clause 3), and which packets
//! are left to a real one.

use crate::{Frame, Headers, NeighborKey, Protocol, Vid, wire::repeated};

/// Source and destination of a packet that a hop changes in nothing but its TTL or hop limit, as addresses on a
/// VLAN; `None` for whatever else.
#[inline(always)]
pub fn ends(frame: &impl Frame, headers: &Headers, vid: Vid) -> Option<(NeighborKey, NeighborKey)> {
    match headers.protocol {
        Protocol::IPV4 => ipv4(frame, headers, vid),
        Protocol::IPV6 => ipv6(frame, headers, vid),
        _ => None,
    }
}

#[inline(always)]
fn ipv4(frame: &impl Frame, headers: &Headers, vid: Vid) -> Option<(NeighborKey, NeighborKey)> {
    let packet: [u8; 20] = frame.whole().read(headers.network)?;
    let without_options = packet[0] == 0x45;
    // "Don't fragment" alone, or nothing.
    let whole = packet[6] & !0x40 == 0 && packet[7] == 0;
    // RFC 3927 clause 7.
    let link_local = packet[12] == 169 && packet[13] == 254;
    let source = [packet[12], packet[13], packet[14], packet[15]];
    let destination = [packet[16], packet[17], packet[18], packet[19]];
    (without_options && whole && !link_local && packet[8] > 1).then(|| {
        (
            NeighborKey::ipv4(vid, source),
            NeighborKey::ipv4(vid, destination),
        )
    })
}

#[inline(always)]
fn ipv6(frame: &impl Frame, headers: &Headers, vid: Vid) -> Option<(NeighborKey, NeighborKey)> {
    let start: [u8; 8] = frame.whole().read(headers.network)?;
    // TCP, UDP, ICMPv6 and SCTP. Anything else may be an extension header.
    let without_extensions = matches!(start[6], 6 | 17 | 58 | 132);
    if start[0] >> 4 != 6 || !without_extensions || start[7] <= 1 {
        return None;
    }
    let source: [u8; 16] = frame.whole().read(headers.network + 8)?;
    let destination = frame.whole().read(headers.network + 24)?;
    // RFC 4291 clause 2.5.6.
    let link_local = source[0] == 0xfe && source[1] & 0xc0 == 0x80;
    (!link_local).then(|| {
        (
            NeighborKey::ipv6(vid, source),
            NeighborKey::ipv6(vid, destination),
        )
    })
}

/// Whether what goes out of a buffer fits the MTU of another device.
#[inline(always)]
pub fn fits(frame: &impl Frame, headers: &Headers, mtu: u16) -> bool {
    let length = match frame.segments() {
        None => frame.len().saturating_sub(headers.network),
        Some(segments) => match repeated(frame.whole(), headers) {
            Some(repeated) => repeated.end - headers.network + segments.size as usize,
            None => return false,
        },
    };
    length <= mtu as usize
}

/// The four bytes of a network header that a hop changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hop {
    /// TTL, protocol, header checksum (RFC 791 clause 3.1).
    Ipv4,
    /// Payload length, next header, hop limit (RFC 8200 clause 3).
    Ipv6,
}

impl Hop {
    /// That of the packets for which there are [`ends`].
    #[inline(always)]
    pub fn of(headers: &Headers) -> Option<Self> {
        match headers.protocol {
            Protocol::IPV4 => Some(Self::Ipv4),
            Protocol::IPV6 => Some(Self::Ipv6),
            _ => None,
        }
    }

    /// From the network header on.
    #[inline(always)]
    pub const fn offset(self) -> usize {
        match self {
            Self::Ipv4 => 8,
            Self::Ipv6 => 4,
        }
    }

    /// What a router makes of them. Not for a TTL or hop limit of 0.
    #[inline(always)]
    pub const fn take(self, [a, b, c, d]: [u8; 4]) -> [u8; 4] {
        match self {
            Self::Ipv4 => {
                let (old, new) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([a - 1, b]));
                // RFC 1624 clause 3, equation 3.
                let sum = !u16::from_be_bytes([c, d]) as u32 + !old as u32 + new as u32;
                let sum = (sum & 0xffff) + (sum >> 16);
                let [c, d] = (!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes();
                [a - 1, b, c, d]
            }
            Self::Ipv6 => [a, b, c, d - 1],
        }
    }
}

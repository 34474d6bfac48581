//! What a router does to a packet that it forwards (RFC 1812 clause 5.2, RFC 8200 clause 3), and which packets
//! are left to a real one.

use crate::{Frame, Headers, NeighborKey, Protocol, Vid};

/// What a network header says of a packet that a hop changes in nothing but its TTL or hop limit.
pub struct Network {
    /// Source and destination, as addresses on the packet's VLAN.
    pub sender: NeighborKey,
    pub receiver: NeighborKey,
    /// The number of the protocol above: no extension header's.
    pub protocol: u8,
    /// TTL or hop limit.
    pub hops: u8,
    /// IPv4's, host byte order; 0 for IPv6, which has none.
    pub identification: u16,
    /// Bytes of header.
    pub header: usize,
    /// Bytes behind the header, as it says itself; 0 where that is more than it can say (BIG TCP).
    pub payload: usize,
}

impl Network {
    /// Reads it; `None` for what is left to a real router: options, extension headers, fragments, addresses of
    /// one link alone, and whatever is not IP.
    #[inline(always)]
    pub fn read(frame: &impl Frame, headers: &Headers, vid: Vid) -> Option<Self> {
        match headers.protocol {
            Protocol::IPV4 => Self::ipv4(frame.whole(), headers.network, vid),
            Protocol::IPV6 => Self::ipv6(frame.whole(), headers.network, vid),
            _ => None,
        }
    }

    #[inline(always)]
    fn ipv4(frame: &impl Frame, at: usize, vid: Vid) -> Option<Self> {
        let packet: [u8; 20] = frame.read(at)?;
        let without_options = packet[0] == 0x45;
        // "Don't fragment" alone, or nothing.
        let whole = packet[6] & !0x40 == 0 && packet[7] == 0;
        // RFC 3927 clause 7.
        let link_local = packet[12] == 169 && packet[13] == 254;
        let length = u16::from_be_bytes([packet[2], packet[3]]) as usize;
        let source = [packet[12], packet[13], packet[14], packet[15]];
        let destination = [packet[16], packet[17], packet[18], packet[19]];
        (without_options && whole && !link_local).then(|| Self {
            sender: NeighborKey::ipv4(vid, source),
            receiver: NeighborKey::ipv4(vid, destination),
            protocol: packet[9],
            hops: packet[8],
            identification: u16::from_be_bytes([packet[4], packet[5]]),
            header: packet.len(),
            payload: length.saturating_sub(packet.len()),
        })
    }

    #[inline(always)]
    fn ipv6(frame: &impl Frame, at: usize, vid: Vid) -> Option<Self> {
        let start: [u8; 8] = frame.read(at)?;
        // TCP, UDP, ICMPv6 and SCTP. Anything else may be an extension header.
        let without_extensions = matches!(start[6], 6 | 17 | 58 | 132);
        if start[0] >> 4 != 6 || !without_extensions {
            return None;
        }
        let source: [u8; 16] = frame.read(at + 8)?;
        let destination = frame.read(at + 24)?;
        // RFC 4291 clause 2.5.6.
        let link_local = source[0] == 0xfe && source[1] & 0xc0 == 0x80;
        (!link_local).then_some(Self {
            sender: NeighborKey::ipv6(vid, source),
            receiver: NeighborKey::ipv6(vid, destination),
            protocol: start[6],
            hops: start[7],
            identification: 0,
            header: 40,
            payload: u16::from_be_bytes([start[4], start[5]]) as usize,
        })
    }
}

/// Source and destination of a packet that a router may send on, as addresses on a VLAN.
#[inline(always)]
pub fn ends(frame: &impl Frame, headers: &Headers, vid: Vid) -> Option<(NeighborKey, NeighborKey)> {
    let network = Network::read(frame, headers, vid)?;
    (network.hops > 1).then_some((network.sender, network.receiver))
}

/// Whether what goes out of a buffer fits the MTU of another device.
#[inline(always)]
pub fn fits(frame: &impl Frame, headers: &Headers, mtu: u16) -> bool {
    longest(frame, headers).is_some_and(|length| length <= mtu as usize)
}

/// The bytes from the network header on of the longest packet that a buffer stands for; `None` where it can't be
/// told.
#[inline(always)]
pub fn longest(frame: &impl Frame, headers: &Headers) -> Option<usize> {
    match frame.segments() {
        None => Some(frame.len().saturating_sub(headers.network)),
        Some(segments) => {
            let repeated = frame.whole().repeated(headers);
            let longest = repeated.end - headers.network + segments.size as usize;
            repeated.is_whole.then_some(longest)
        }
    }
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

//! What a router changes in a packet that it forwards (RFC 1812 clause 5.2, RFC 8200 clause 3).

use core::mem::offset_of;

use network_types::ip::{Ipv4Hdr, Ipv6Hdr};

use crate::layer2::{Headers, Protocol};

/// The four bytes of a network header that a hop changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hop {
    /// TTL, protocol, header checksum (RFC 791 clause 3.1).
    Ipv4,
    /// Payload length, next header, hop limit (RFC 8200 clause 3).
    Ipv6,
}

impl Hop {
    /// The bytes by the version of IP; `None` for what is not IP.
    #[inline(always)]
    pub fn of(headers: &Headers) -> Option<Self> {
        match headers.protocol {
            Protocol::IPV4 => Some(Self::Ipv4),
            Protocol::IPV6 => Some(Self::Ipv6),
            _ => None,
        }
    }

    /// Where they start, from the network header on.
    #[inline(always)]
    pub const fn offset(self) -> usize {
        match self {
            Self::Ipv4 => offset_of!(Ipv4Hdr, ttl),
            Self::Ipv6 => offset_of!(Ipv6Hdr, payload_len),
        }
    }

    /// What a router makes of the bytes. The TTL or hop limit must not be 0.
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

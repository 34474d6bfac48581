//! What a UDP datagram holds. Ports are anybody's choice, so a tunnel is known by what its header looks like,
//! and by an IP packet in it that ends exactly where the buffer does: GSO and GRO keep the lengths of inner
//! packets those of the whole. Datagrams that are split themselves (UDP_SEGMENT), and that each hold a
//! packet of a tunnel, don't have that.

use super::repeated::{forgotten, next};
use crate::{Frame, Segments};

/// One guess after the other, the likely one first; the last is that it is mere payload.
pub(super) struct Guess {
    /// Behind the UDP header; 0 where nothing is left to guess.
    start: u16,
    /// The tunnel's first inner header, and where it would start.
    likely: u16,
    offset: usize,
    /// A Geneve header and a GRE header, as FOU has it (Linux 3.18), can begin alike; or payload.
    other: u16,
}

impl Guess {
    pub const NONE: Self = Self {
        start: 0,
        likely: next::PAYLOAD,
        offset: 0,
        other: next::PAYLOAD,
    };

    /// From the first four bytes behind a UDP header.
    #[inline(always)]
    pub fn of(frame: &impl Frame, start: usize) -> Self {
        let none = Self {
            start: start as u16,
            ..Self::NONE
        };
        let Some([a, b, c, d]) = frame.read(start) else {
            return none;
        };
        let ether_type = u16::from_be_bytes([c, d]);
        let is_inner = matches!(
            ether_type,
            next::ETHERNET | next::IPV4 | next::IPV6 | next::MPLS
        );
        let (likely, header) = match (a, b) {
            // The packet itself: FOU, GUE variant 1, bareudp.
            (0x45..=0x4f, _) => (next::IPV4, 0),
            (0x60..=0x6f, _) => (next::IPV6, 0),
            // GUE variant 0 (draft-ietf-intarea-gue clause 3.2), with words of options.
            (0..0x20, 4 | 41 | 47) => (b as u16, 4 + a as usize * 4),
            // Geneve (RFC 8926 clause 3.4), likewise.
            (0..0x40, _) if b & 0x3f == 0 && is_inner => (ether_type, 8 + a as usize * 4),
            // VXLAN-GPE (draft-ietf-nvo3-vxlan-gpe clause 3.1): flags I and P, next protocol.
            (0x0c..=0x0f, 0) => (generic(d), 8),
            // VXLAN (RFC 7348 clause 5) and its group policy: flag I.
            _ if a & 0x48 == 0x08 => (next::ETHERNET, 8),
            // MPLS in UDP (RFC 7510); no packet has a TTL of 0.
            _ if d != 0 => (next::MPLS, 0),
            _ => (next::PAYLOAD, 0),
        };
        Self {
            likely,
            offset: start + header,
            other: match a & 0x4f == 0 && b == 0 && is_inner {
                true => next::GRE,
                false => next::PAYLOAD,
            },
            ..none
        }
    }

    /// The next guess: which header is where.
    #[inline(always)]
    pub fn next(&mut self, frame: &impl Frame) -> Option<(u16, usize)> {
        if self.likely != next::PAYLOAD {
            let likely = self.likely;
            self.likely = next::PAYLOAD;
            return Some((likely, self.offset));
        }
        if self.other != next::PAYLOAD {
            let other = self.other;
            self.other = next::PAYLOAD;
            return Some((other, self.payload()?));
        }
        let start = self.payload()?;
        self.start = 0;
        // SCTP alone is split by fragments, so it is what such a datagram holds (RFC 6951).
        match frame.segments()?.size {
            Segments::BY_FRAGMENTS => Some((next::SCTP, start)),
            _ => Some((next::PAYLOAD, start)),
        }
    }

    /// The last guess, where something is left to guess.
    #[inline(always)]
    pub fn payload(&self) -> Option<usize> {
        (self.start != 0).then_some(self.start as usize)
    }

    /// Has the verifier forget what it knows of it.
    #[inline(always)]
    pub fn forget(&mut self, frame: &impl Frame) {
        self.start = forgotten(self.start, frame);
        self.likely = forgotten(self.likely, frame);
        self.other = forgotten(self.other, frame);
    }

    /// Whether an IP packet is what it was taken for, whose header says so many bytes from an offset on; then
    /// nothing is left to guess.
    #[inline(always)]
    pub fn is_met(&mut self, frame: &impl Frame, from: usize, says: u16) -> bool {
        if self.start == 0 {
            return true;
        }
        let is_met = match frame.len().saturating_sub(from) {
            length @ 1..=0xffff => says as usize == length,
            // BIG TCP: a length that the field has no room for.
            0 => false,
            _ => says == 0,
        };
        if is_met {
            *self = Self::NONE;
        }
        is_met
    }
}

/// The next protocol of VXLAN-GPE.
#[inline(always)]
fn generic(number: u8) -> u16 {
    match number {
        1 => next::IPV4,
        2 => next::IPV6,
        3 => next::ETHERNET,
        5 => next::MPLS,
        _ => next::PAYLOAD,
    }
}

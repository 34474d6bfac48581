//! Which tunnel a UDP datagram holds. Anybody may choose any port, so a tunnel is recognised by what its header looks
//! like, and by an IP packet inside that ends exactly where the buffer does: GSO and GRO keep the length fields of inner
//! packets at the length of the whole buffer. Datagrams that are split themselves (UDP_SEGMENT), and that each hold a
//! packet of a tunnel, do not have such a packet.

use super::{forget::forgotten, next_header as next};
use crate::frame::{Frame, Segments};

/// The guesses at what a datagram holds, the likely one first; the last is that it is mere payload.
pub struct Guess {
    /// The offset behind the UDP header; 0 where nothing is left to guess.
    start: u16,
    /// The tunnel's first inner header.
    likely: u16,
    /// The offset at which that would start.
    offset: usize,
    /// The second guess: a Geneve header and a GRE header, as FOU has it (Linux 3.18), can begin alike. Otherwise payload.
    other: u16,
}

impl Guess {
    pub const NONE: Self = Self {
        start: 0,
        likely: next::PAYLOAD,
        offset: 0,
        other: next::PAYLOAD,
    };

    /// Guesses from the first four bytes behind a UDP header.
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
            // An IP packet without a header before it: FOU, GUE variant 1, bareudp.
            (0x45..=0x4f, _) => (next::IPV4, 0),
            (0x60..=0x6f, _) => (next::IPV6, 0),
            // GUE variant 0 (draft-ietf-intarea-gue clause 3.2), with options, counted in words.
            (0..0x20, 4 | 41 | 47) => (b as u16, 4 + a as usize * 4),
            // Geneve (RFC 8926 clause 3.4), with options, counted in words.
            (0..0x40, _) if b & 0x3f == 0 && is_inner => (ether_type, 8 + a as usize * 4),
            // VXLAN-GPE (draft-ietf-nvo3-vxlan-gpe clause 3.1): flags I and P, next protocol.
            (0x0c..=0x0f, 0) => (gpe_next_protocol(d), 8),
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

    /// Takes the next guess: a header, and the offset at which it would start.
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
        // Linux splits only SCTP by fragments, so that is what such a datagram holds (RFC 6951).
        match frame.segments()?.size {
            Segments::BY_FRAGMENTS => Some((next::SCTP, start)),
            _ => Some((next::PAYLOAD, start)),
        }
    }

    /// Where the datagram's payload starts, if something is left to guess.
    #[inline(always)]
    pub fn payload(&self) -> Option<usize> {
        (self.start != 0).then_some(self.start as usize)
    }

    /// Makes the guesses unknown to the verifier.
    #[inline(always)]
    pub fn forget(&mut self, frame: &impl Frame) {
        self.start = forgotten(self.start, frame);
        self.likely = forgotten(self.likely, frame);
        self.other = forgotten(self.other, frame);
    }

    /// Whether an IP packet confirms the guess: its header says that there are `says` bytes from an offset on. Then nothing
    /// is left to guess.
    #[inline(always)]
    pub fn confirm(&mut self, frame: &impl Frame, from: usize, says: u16) -> bool {
        if self.start == 0 {
            return true;
        }
        let is_confirmed = match frame.len().saturating_sub(from) {
            length @ 1..=0xffff => says as usize == length,
            // The field has no room for the length (BIG TCP).
            0 => false,
            _ => says == 0,
        };
        if is_confirmed {
            *self = Self::NONE;
        }
        is_confirmed
    }
}

/// The header that a next protocol of VXLAN-GPE stands for.
#[inline(always)]
fn gpe_next_protocol(number: u8) -> u16 {
    match number {
        1 => next::IPV4,
        2 => next::IPV6,
        3 => next::ETHERNET,
        5 => next::MPLS,
        _ => next::PAYLOAD,
    }
}

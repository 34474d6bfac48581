//! The headers in front of what GSO splits. The kernel says into how many packets, but not behind which header, so they
//! are read up to the innermost transport, through whatever tunnels there are.

use core::mem::offset_of;

use network_types::{
    eth::EthHdr, ip::Ipv6Hdr, mpls::Mpls, sctp::SctpHdr, tcp::TcpHdr, udp::UdpHdr, vlan::VlanHdr,
};

use super::{forget::forgotten, next_header as next, udp_tunnel::Guess};
use crate::{
    frame::{Frame, Repeated},
    layer2::{Headers, Protocol, Tag},
};

/// No more headers than this are read: two tunnels with a tag, options and labels have 14.
const MAX_HEADERS: usize = 16;

/// Reads the headers up to the payload.
#[inline(always)]
pub fn repeated(frame: &impl Frame, headers: &Headers) -> Repeated {
    let mut walk = Walk {
        offset: headers.network,
        not_sent: 0,
        guess: Guess::NONE,
    };
    let mut header = headers.protocol.number();
    if header < Protocol::FIRST_ETHER_TYPE {
        return walk.stops(false);
    }
    for _ in 0..MAX_HEADERS {
        header = forgotten(header, frame);
        walk.forget(frame);
        if header == next::PAYLOAD {
            return walk.stops(true);
        }
        header = match walk.step(frame, header) {
            Some(following) => following,
            None => match walk.guess.next(frame) {
                Some((following, offset)) => {
                    walk.offset = offset;
                    following
                }
                None => return walk.stops(false),
            },
        };
    }
    // A datagram whose payload looks like a tunnel's headers without an end: no IP packet has confirmed the guess, so it
    // is payload.
    if let Some(start) = walk.guess.payload() {
        walk.offset = start;
        return walk.stops(true);
    }
    walk.stops(false)
}

struct Walk {
    /// The offset of the header that is read next.
    offset: usize,
    not_sent: usize,
    /// What a UDP datagram may hold, until an IP packet in it confirms that.
    guess: Guess,
}

impl Walk {
    /// Makes the walk's state unknown to the verifier.
    #[inline(always)]
    fn forget(&mut self, frame: &impl Frame) {
        self.offset = forgotten(self.offset as u16, frame) as usize;
        self.not_sent = forgotten(self.not_sent as u16, frame) as usize;
        self.guess.forget(frame);
    }

    #[inline(always)]
    fn stops(&self, is_whole: bool) -> Repeated {
        Repeated {
            end: self.offset,
            not_sent: self.not_sent,
            is_whole,
        }
    }

    /// Reads a header, moves behind it, and returns which is next; `None` for a header that is not what it was taken for.
    #[inline(always)]
    fn step(&mut self, frame: &impl Frame, header: u16) -> Option<u16> {
        match header {
            Tag::C_TAG | Tag::S_TAG => self.ethernet(frame, offset_of!(VlanHdr, ether_type)),
            next::ETHERNET | next::ETHERNET_IN_IP => {
                self.ethernet(frame, offset_of!(EthHdr, ether_type))
            }
            next::MPLS | next::MPLS_MULTICAST | next::MPLS_IN_IP => self.label(frame),
            next::IPV4 | next::IPV4_IN_IP => self.ipv4(frame),
            next::IPV6 | next::IPV6_IN_IP => self.ipv6(frame),
            next::HOP_BY_HOP | next::ROUTING | next::DESTINATION => self.extension(frame, 1, 8),
            // The length counts words, less two (RFC 4302 clause 2.2).
            next::AH => self.extension(frame, 2, 4),
            next::GRE => self.gre(frame),
            next::TCP => {
                // The data offset, in words (RFC 9293 clause 3.1).
                let [doff] = frame.read(self.offset + offset_of!(TcpHdr, _bitfield_1))?;
                self.behind((doff >> 4) as usize * 4, next::PAYLOAD)
            }
            next::UDP => self.udp(frame),
            next::SCTP => self.behind(SctpHdr::LEN, next::PAYLOAD),
            next::ESP => {
                // SPI and sequence number (RFC 4303 clause 2). What follows is encrypted.
                self.offset += 2 * size_of::<u32>();
                None
            }
            _ => None,
        }
    }

    #[inline(always)]
    fn behind(&mut self, length: usize, following: u16) -> Option<u16> {
        self.offset += length;
        Some(following)
    }

    /// An Ethernet header or a tag, whose type field is so far behind its start.
    #[inline(always)]
    fn ethernet(&mut self, frame: &impl Frame, to_type: usize) -> Option<u16> {
        let ether_type = ether_type(frame.read(self.offset + to_type)?)?;
        self.behind(to_type + size_of::<u16>(), ether_type)
    }

    /// An MPLS label stack entry (RFC 3032 clause 2.1). What follows the last one is told by its IP version.
    #[inline(always)]
    fn label(&mut self, frame: &impl Frame) -> Option<u16> {
        let [_, _, bottom, ttl, version] = frame.read(self.offset)?;
        let following = match (bottom & 1, version >> 4) {
            _ if ttl == 0 => return None,
            (0, _) => next::MPLS,
            (_, 4) => next::IPV4,
            (_, 6) => next::IPV6,
            _ => return None,
        };
        self.behind(size_of::<Mpls>(), following)
    }

    /// An IPv4 header (RFC 791 clause 3.1).
    #[inline(always)]
    fn ipv4(&mut self, frame: &impl Frame) -> Option<u16> {
        let [version_ihl, _, high, low, _, _, _, _, _, protocol] = frame.read(self.offset)?;
        let length = u16::from_be_bytes([high, low]);
        let is_ipv4 = version_ihl >> 4 == 4 && self.guess.confirm(frame, self.offset, length);
        if !is_ipv4 {
            return None;
        }
        self.behind((version_ihl & 0xf) as usize * 4, protocol.into())
    }

    /// An IPv6 header (RFC 8200 clause 3).
    #[inline(always)]
    fn ipv6(&mut self, frame: &impl Frame) -> Option<u16> {
        // The header before its addresses, of which GSO needs three fields.
        let [version, _, _, _, high, low, next_hdr, _] = frame.read(self.offset)?;
        let length = u16::from_be_bytes([high, low]);
        let payload = self.offset + Ipv6Hdr::LEN;
        let is_ipv6 = version >> 4 == 6 && self.guess.confirm(frame, payload, length);
        if !is_ipv6 {
            return None;
        }
        // BIG TCP (Linux 5.19): a jumbo payload option (RFC 2675) that is in memory alone.
        if length == 0 && next_hdr as u16 == next::HOP_BY_HOP {
            self.not_sent += 8;
        }
        self.behind(Ipv6Hdr::LEN, next_hdr.into())
    }

    /// An extension header, which starts with the number of the next and its own length: a number of units, less some
    /// that are not counted.
    #[inline(always)]
    fn extension(&mut self, frame: &impl Frame, less: usize, unit: usize) -> Option<u16> {
        let [following, length] = frame.read(self.offset)?;
        self.behind((length as usize + less) * unit, following.into())
    }

    /// A GRE header (RFC 2784 clause 2, RFC 2890 clause 2): checksum, key and sequence number take a word each. Linux
    /// splits packets of no other version, and with no other flag.
    #[inline(always)]
    fn gre(&mut self, frame: &impl Frame) -> Option<u16> {
        let [flags, version, high, low] = frame.read(self.offset)?;
        if flags & 0x4f != 0 || version != 0 {
            return None;
        }
        let words = 1 + (flags >> 7) + (flags >> 5 & 1) + (flags >> 4 & 1);
        let following = ether_type([high, low])?;
        self.behind(words as usize * 4, following)
    }

    /// A UDP header (RFC 768). What follows is a guess.
    #[inline(always)]
    fn udp(&mut self, frame: &impl Frame) -> Option<u16> {
        self.offset += UdpHdr::LEN;
        self.guess = Guess::of(frame, self.offset);
        None
    }
}

#[inline(always)]
fn ether_type(bytes: [u8; 2]) -> Option<u16> {
    let number = u16::from_be_bytes(bytes);
    (number >= Protocol::FIRST_ETHER_TYPE).then_some(number)
}

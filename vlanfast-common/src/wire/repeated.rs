//! The headers in front of what GSO splits: the kernel says in how many packets, but not behind which
//! header, so they are read up to the innermost transport, through whatever tunnels there are.

use super::guess::Guess;
use crate::{Frame, Headers, Tag};

/// The headers that every packet of a buffer repeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repeated {
    /// Where they end.
    pub end: usize,
    /// Bytes of them in memory that the wire never carries.
    pub not_sent: usize,
    /// The payload starts there; otherwise what could not be read.
    pub is_whole: bool,
}

impl Repeated {
    /// In one number, as a BPF function returns them.
    #[inline(always)]
    pub const fn to_bits(self) -> u64 {
        (self.is_whole as u64) << 48 | (self.not_sent as u64) << 32 | self.end as u64
    }

    /// From what [`Repeated::to_bits`] gives.
    #[inline(always)]
    pub const fn from_bits(bits: u64) -> Self {
        Self {
            end: bits as u32 as usize,
            not_sent: (bits >> 32) as u16 as usize,
            is_whole: bits >> 48 != 0,
        }
    }
}

/// More headers than this are not read: two tunnels with a tag, options and labels have 14.
const MAX_HEADERS: usize = 16;

/// What a header says of the next one: an EtherType or, below those, the number of an IP protocol.
pub(super) mod next {
    pub const HOP_BY_HOP: u16 = 0;
    pub const IPV4_IN_IP: u16 = 4;
    pub const TCP: u16 = 6;
    pub const UDP: u16 = 17;
    pub const IPV6_IN_IP: u16 = 41;
    pub const ROUTING: u16 = 43;
    pub const GRE: u16 = 47;
    pub const ESP: u16 = 50;
    pub const AH: u16 = 51;
    pub const DESTINATION: u16 = 60;
    pub const SCTP: u16 = 132;
    pub const MPLS_IN_IP: u16 = 137;
    pub const ETHERNET_IN_IP: u16 = 143;
    pub const FIRST_ETHER_TYPE: u16 = 0x0600;
    pub const IPV4: u16 = 0x0800;
    /// Transparent Ethernet bridging (RFC 1701).
    pub const ETHERNET: u16 = 0x6558;
    pub const IPV6: u16 = 0x86dd;
    pub const MPLS: u16 = 0x8847;
    pub const MPLS_MULTICAST: u16 = 0x8848;
    /// IANA keeps this number free.
    pub const PAYLOAD: u16 = 0xffff;
}

/// Reads the headers up to the payload.
#[inline(always)]
pub fn repeated(frame: &impl Frame, headers: &Headers) -> Repeated {
    let mut walk = Walk {
        offset: headers.network,
        not_sent: 0,
        guess: Guess::NONE,
    };
    let mut header = headers.protocol.number();
    if header < next::FIRST_ETHER_TYPE {
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
    // Whatever was guessed has not shown, as with a datagram that could go on and on with labels.
    if let Some(start) = walk.guess.payload() {
        walk.offset = start;
        return walk.stops(true);
    }
    walk.stops(false)
}

/// Gives a number back as one of which the verifier knows nothing any more. It would follow every header that can come
/// next with all that was before, and give up; so all ways to a header are one.
#[cfg(target_arch = "bpf")]
#[inline(always)]
pub(super) fn forgotten(number: u16, frame: &impl Frame) -> u16 {
    let mut number = number as u64;
    // SAFETY: the verifier only knows that a length is a length, so this gives it a number that it does not
    // know; the number is what it was.
    unsafe {
        core::arch::asm!(
            "{number} ^= {len}",
            "{number} ^= {len}",
            number = inout(reg) number,
            len = in(reg) frame.len() as u64,
            options(pure, nomem, nostack),
        );
    }
    number as u16
}

/// There is no verifier.
#[cfg(not(target_arch = "bpf"))]
pub(super) fn forgotten(number: u16, _: &impl Frame) -> u16 {
    number
}

struct Walk {
    /// Where the header starts that is read next.
    offset: usize,
    not_sent: usize,
    /// What a UDP datagram may hold, until that has shown.
    guess: Guess,
}

impl Walk {
    /// Has the verifier forget what it knows of it.
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

    /// Reads a header: moves behind it, and says which is next; `None` of one that is not what it was taken for.
    #[inline(always)]
    fn step(&mut self, frame: &impl Frame, header: u16) -> Option<u16> {
        match header {
            Tag::C_TAG | Tag::S_TAG => self.ethernet(frame, 2),
            next::ETHERNET | next::ETHERNET_IN_IP => self.ethernet(frame, 12),
            next::MPLS | next::MPLS_MULTICAST | next::MPLS_IN_IP => self.label(frame),
            next::IPV4 | next::IPV4_IN_IP => self.ipv4(frame),
            next::IPV6 | next::IPV6_IN_IP => self.ipv6(frame),
            next::HOP_BY_HOP | next::ROUTING | next::DESTINATION => self.extension(frame, 1, 8),
            // RFC 4302 clause 2.2 counts words, less two.
            next::AH => self.extension(frame, 2, 4),
            next::GRE => self.gre(frame),
            next::TCP => {
                // RFC 9293 clause 3.1.
                let [offset] = frame.read(self.offset + 12)?;
                self.behind((offset >> 4) as usize * 4, next::PAYLOAD)
            }
            next::UDP => self.udp(frame),
            // RFC 9260 clause 3.1.
            next::SCTP => self.behind(12, next::PAYLOAD),
            next::ESP => {
                // SPI and sequence number (RFC 4303 clause 2); the SA alone knows what follows.
                self.offset += 8;
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

    /// An Ethernet header or a tag, whose type is so far behind its start.
    #[inline(always)]
    fn ethernet(&mut self, frame: &impl Frame, to_type: usize) -> Option<u16> {
        let ether_type = ether_type(frame.read(self.offset + to_type)?)?;
        self.behind(to_type + 2, ether_type)
    }

    /// A label stack entry (RFC 3032 clause 2.1). What is behind the last one shows by its version.
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
        self.behind(4, following)
    }

    /// RFC 791 clause 3.1.
    #[inline(always)]
    fn ipv4(&mut self, frame: &impl Frame) -> Option<u16> {
        let [version_ihl, _, high, low, _, _, _, _, _, protocol] = frame.read(self.offset)?;
        let length = u16::from_be_bytes([high, low]);
        let is_it = version_ihl >> 4 == 4 && self.guess.is_met(frame, self.offset, length);
        if !is_it {
            return None;
        }
        self.behind((version_ihl & 0xf) as usize * 4, protocol.into())
    }

    /// RFC 8200 clause 3.
    #[inline(always)]
    fn ipv6(&mut self, frame: &impl Frame) -> Option<u16> {
        const LENGTH: usize = 40;
        let [version, _, _, _, high, low, following, _] = frame.read(self.offset)?;
        let length = u16::from_be_bytes([high, low]);
        let is_it = version >> 4 == 6 && self.guess.is_met(frame, self.offset + LENGTH, length);
        if !is_it {
            return None;
        }
        // BIG TCP (Linux 5.19): a jumbo payload option (RFC 2675) that lives in memory alone.
        if length == 0 && following as u16 == next::HOP_BY_HOP {
            self.not_sent += 8;
        }
        self.behind(LENGTH, following.into())
    }

    /// A header that starts with the number of the next and its own length, in units, less some.
    #[inline(always)]
    fn extension(&mut self, frame: &impl Frame, less: usize, unit: usize) -> Option<u16> {
        let [following, length] = frame.read(self.offset)?;
        self.behind((length as usize + less) * unit, following.into())
    }

    /// RFC 2784 clause 2, RFC 2890 clause 2: checksum, key and sequence number take a word each. No other
    /// version or flag is one that Linux splits.
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

    /// RFC 768. What it holds is a guess.
    #[inline(always)]
    fn udp(&mut self, frame: &impl Frame) -> Option<u16> {
        self.offset += 8;
        self.guess = Guess::of(frame, self.offset);
        None
    }
}

#[inline(always)]
fn ether_type(bytes: [u8; 2]) -> Option<u16> {
    let number = u16::from_be_bytes(bytes);
    (number >= next::FIRST_ETHER_TYPE).then_some(number)
}

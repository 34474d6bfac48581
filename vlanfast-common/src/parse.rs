//! Layer 2 of a frame: Ethernet II and 802.3 (IEEE 802.3-2022 clause 3.2.6), tags (IEEE 802.1Q-2022
//! clause 9). Total: every sequence of bytes has a result, and none is read past its end.

use crate::{Frame, Mac, Tag, Vid};

/// What layer 2 says of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    pub vlan: Vlan,
    pub cast: Cast,
    pub protocol: Protocol,
    /// Where the network header starts; behind the last tag that was read.
    pub network: usize,
}

impl Headers {
    /// Where the network header starts behind no tag, or one that is not among the bytes.
    pub const ETHERNET: usize = 14;

    /// In one number, as a BPF function takes them.
    #[inline(always)]
    pub const fn to_bits(self) -> u64 {
        let cast = (self.cast as u64) << 40;
        let network = (self.network as u64) << 32;
        cast | network | (self.protocol.0 as u64) << 16 | self.vlan.0 as u64
    }

    /// The other way round.
    #[inline(always)]
    pub const fn from_bits(bits: u64) -> Self {
        Self {
            vlan: Vlan(bits as u16),
            cast: match bits >> 40 {
                0 => Cast::Unicast,
                1 => Cast::Multicast,
                _ => Cast::Broadcast,
            },
            protocol: Protocol((bits >> 16) as u16),
            network: (bits >> 32 & 0xff) as usize,
        }
    }
}

/// To which VLAN of the trunk a frame belongs; its number is the key of the map `COUNTERS`.
///
/// One number and not an enum with a payload: where LLVM leaves a payload undefined, the verifier
/// sees a register that was never written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Vlan(u16);

impl Vlan {
    /// Untagged and priority-tagged frames.
    pub const UNTAGGED: Self = Self::id(Vid::UNTAGGED);
    /// The outermost tag is an 802.1ad service tag, whose VIDs are another number space.
    pub const SERVICE: Self = Self(4096);
    /// The frame ends before it says.
    pub const TRUNCATED: Self = Self(4097);
    /// How many there are.
    pub const COUNT: u32 = 4098;

    /// An 802.1Q VLAN.
    #[inline(always)]
    pub const fn id(vid: Vid) -> Self {
        Self(vid.get())
    }

    /// Its VID, unless it is one of the two without.
    #[inline(always)]
    pub fn vid(self) -> Option<Vid> {
        (self.0 < Self::SERVICE.0).then(|| Vid::new(self.0))
    }

    /// The word for what its frames have for a tag.
    pub const fn tag(self) -> &'static str {
        match self {
            Self::UNTAGGED => "untagged",
            Self::SERVICE => "802.1ad",
            Self::TRUNCATED => "truncated",
            _ => "802.1Q",
        }
    }

    /// The map's key: the VID, 4096 or 4097.
    #[inline(always)]
    pub const fn key(self) -> u32 {
        self.0 as u32
    }

    /// All of them, in the order of their keys.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..=Self::TRUNCATED.0).map(Self)
    }
}

/// To how many a frame is sent, by its destination MAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Cast {
    Unicast = 0,
    Multicast = 1,
    Broadcast = 2,
}

impl Cast {
    pub const ALL: [Self; 3] = [Self::Unicast, Self::Multicast, Self::Broadcast];

    /// The word in `counters` and in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unicast => "unicast",
            Self::Multicast => "multicast",
            Self::Broadcast => "broadcast",
        }
    }
}

/// What the frame carries: the number in its type field, host byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocol(u16);

impl Protocol {
    /// The frame ends before it says. No 802.3 frame has length 0: an LLC header takes 3 bytes.
    pub const TRUNCATED: Self = Self(0);
    pub const IPV4: Self = Self(0x0800);
    pub const ARP: Self = Self(0x0806);
    pub const IPV6: Self = Self(0x86dd);

    /// The number: an EtherType from 0x0600 on, an 802.3 length below.
    #[inline(always)]
    pub const fn number(self) -> u16 {
        self.0
    }

    /// An LLC header follows, not an EtherType's.
    #[inline(always)]
    pub const fn is_llc(self) -> bool {
        self.0 != 0 && self.0 < FIRST_ETHER_TYPE
    }

    /// A further tag follows: passed, not looked into.
    #[inline(always)]
    pub const fn is_stacked(self) -> bool {
        Tag::is_tpid(self.0)
    }
}

const TYPE_OFFSET: usize = 12;
/// 802.3 lengths end below this; EtherTypes start here.
const FIRST_ETHER_TYPE: u16 = 0x0600;

/// Reads layer 2.
#[inline(always)]
pub fn parse(frame: &impl Frame) -> Headers {
    let cast = cast(frame);
    if let Some(tag) = frame.stripped_tag() {
        return tagged(frame, cast, tag, TYPE_OFFSET);
    }
    match read_u16(frame, TYPE_OFFSET) {
        None => headers(frame, Vlan::TRUNCATED, cast, TYPE_OFFSET),
        Some(tpid) if Tag::is_tpid(tpid) => match read_u16(frame, TYPE_OFFSET + 2) {
            None => headers(frame, Vlan::TRUNCATED, cast, TYPE_OFFSET + Tag::LEN),
            Some(tci) => tagged(frame, cast, Tag { tpid, tci }, TYPE_OFFSET + Tag::LEN),
        },
        Some(_) => headers(frame, Vlan::UNTAGGED, cast, TYPE_OFFSET),
    }
}

/// The headers of a frame by its outermost tag, behind which the type is at `type_offset`.
#[inline(always)]
fn tagged(frame: &impl Frame, cast: Cast, tag: Tag, type_offset: usize) -> Headers {
    if tag.tpid == Tag::S_TAG {
        return headers(frame, Vlan::SERVICE, cast, type_offset);
    }
    let vid = Vid::from_tci(tag.tci);
    // A priority tag before an 802.1Q tag: Linux drops the former and goes by the latter
    // (`__netif_receive_skb_core`, label `check_vlan_id`), and so do we.
    if vid == Vid::UNTAGGED && read_u16(frame, type_offset) == Some(Tag::C_TAG) {
        let vlan = match read_u16(frame, type_offset + 2) {
            Some(tci) => Vlan::id(Vid::from_tci(tci)),
            None => Vlan::TRUNCATED,
        };
        return headers(frame, vlan, cast, type_offset + Tag::LEN);
    }
    headers(frame, Vlan::id(vid), cast, type_offset)
}

/// The headers of a frame whose VLAN is known, and whose type is at `type_offset`.
#[inline(always)]
fn headers(frame: &impl Frame, vlan: Vlan, cast: Cast, type_offset: usize) -> Headers {
    Headers {
        vlan,
        cast,
        protocol: Protocol(read_u16(frame, type_offset).unwrap_or(0)),
        network: type_offset + 2,
    }
}

/// Reads no more than the first two bytes where they are enough. Two, because LLVM turns "is there a
/// first byte" into a comparison from which the verifier learns nothing.
#[inline(always)]
fn cast(frame: &impl Frame) -> Cast {
    match frame.read(0) {
        // The I/G bit, as in `Mac::is_group`.
        Some([first, _]) if first & 1 == 1 => match frame.read(0).map(Mac) {
            Some(Mac::BROADCAST) => Cast::Broadcast,
            Some(_) => Cast::Multicast,
            // No frame that a driver hands on is this short; there is no address to go by.
            None => Cast::Unicast,
        },
        _ => Cast::Unicast,
    }
}

#[inline(always)]
fn read_u16(frame: &impl Frame, offset: usize) -> Option<u16> {
    frame.read(offset).map(u16::from_be_bytes)
}

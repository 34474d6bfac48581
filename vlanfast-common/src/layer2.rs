//! What layer 2 says of a frame.

use network_types::{eth::EthHdr, vlan::VlanHdr};

use crate::abi::{Cast, Vid, Vlan};

/// The headers of layer 2 in brief.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    pub vlan: Vlan,
    pub cast: Cast,
    pub protocol: Protocol,
    /// Where the network header starts: behind the last tag that was read.
    pub network: usize,
}

impl Headers {
    /// Where the network header starts in a frame without a tag among its bytes.
    pub const ETHERNET: usize = EthHdr::LEN;

    /// Packs the headers into one number, as a BPF function takes them.
    #[inline(always)]
    pub const fn to_bits(self) -> u64 {
        let cast = (self.cast as u64) << 40;
        let network = (self.network as u64) << 32;
        cast | network | (self.protocol.0 as u64) << 16 | self.vlan.key() as u64
    }

    /// Unpacks what [`to_bits`](Self::to_bits) made.
    #[inline(always)]
    pub const fn from_bits(bits: u64) -> Self {
        Self {
            vlan: Vlan::from_key(bits as u16),
            cast: match bits >> 40 {
                0 => Cast::Unicast,
                1 => Cast::Multicast,
                _ => Cast::Broadcast,
            },
            protocol: Protocol((bits >> 16) as u16),
            network: (bits >> 32 & 0xff) as usize,
        }
    }

    /// Whether a frame that leaves belongs to the VLAN of the device that it came by: its tag is in metadata, or it has
    /// none. A tag among the bytes is what a container wrote, and no switch would take an untagged port's word for a
    /// VLAN.
    #[inline(always)]
    pub const fn has_hosts_tag(&self) -> bool {
        self.network == Self::ETHERNET && !self.protocol.is_stacked()
    }

    /// The VLAN of a frame with so many bytes, if it is whole up to the end of layer 2.
    #[inline(always)]
    pub fn vid(&self, len: usize) -> Option<Vid> {
        self.vlan.vid().filter(|_| len >= LINEAR_LEN)
    }
}

/// Where layer 2 ends at the latest: behind two tags. No frame on a wire is as short.
pub const LINEAR_LEN: usize = Headers::ETHERNET + 2 * Tag::LEN;

/// What a frame carries: the number in its type field, host byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocol(u16);

impl Protocol {
    /// The frame ends before its type does. No 802.3 frame has length 0: an LLC header takes 3 bytes.
    pub const TRUNCATED: Self = Self(0);
    pub const IPV4: Self = Self(0x0800);
    pub const ARP: Self = Self(0x0806);
    pub const IPV6: Self = Self(0x86dd);

    /// 802.3 lengths end below this number, and EtherTypes start here (IEEE 802.3-2022 clause 3.2.6).
    pub const FIRST_ETHER_TYPE: u16 = 0x0600;

    /// The protocol of a number in a type field.
    #[inline(always)]
    pub const fn new(number: u16) -> Self {
        Self(number)
    }

    /// The number: an EtherType from 0x0600 on, an 802.3 length below.
    #[inline(always)]
    pub const fn number(self) -> u16 {
        self.0
    }

    /// Whether the number is a length, and an LLC header follows.
    #[inline(always)]
    pub const fn is_llc(self) -> bool {
        self.0 != 0 && self.0 < Self::FIRST_ETHER_TYPE
    }

    /// Whether a further tag follows, which is not read.
    #[inline(always)]
    pub const fn is_stacked(self) -> bool {
        Tag::is_tpid(self.0)
    }
}

/// A VLAN tag, IEEE 802.1Q-2022 clause 9.3: TPID and TCI, both in host byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    pub tpid: u16,
    pub tci: u16,
}

impl Tag {
    /// Bytes that a tag takes on the wire: as many as its [`VlanHdr`], which has the TCI and the type behind it.
    pub const LEN: usize = VlanHdr::LEN;
    /// TPID of a customer tag: 802.1Q.
    pub const C_TAG: u16 = 0x8100;
    /// TPID of a service tag: 802.1ad.
    pub const S_TAG: u16 = 0x88a8;

    /// Whether an EtherType announces a tag that Linux takes for one (`eth_type_vlan`).
    #[inline(always)]
    pub const fn is_tpid(ether_type: u16) -> bool {
        matches!(ether_type, Self::C_TAG | Self::S_TAG)
    }
}

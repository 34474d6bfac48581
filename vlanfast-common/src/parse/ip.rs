//! IP headers: what a router reads of a packet that it forwards.

use core::mem::offset_of;

use network_types::ip::{Ipv4Hdr, Ipv6Hdr};

use crate::{
    abi::{NeighborKey, Vid},
    frame::Frame,
    headers::{IPPROTO_ICMPV6, IPPROTO_SCTP, IPPROTO_TCP, IPPROTO_UDP, field},
    layer2::{Headers, Protocol},
};

/// A version of IP.
pub trait IpVersion {
    /// Its EtherType.
    const PROTOCOL: Protocol;

    /// Source and destination address, as they stand in the header one behind the other.
    type Addresses: AsRef<[u8]>;

    /// Reads the addresses of a packet without a tag among its bytes.
    fn addresses(frame: &impl Frame) -> Option<Self::Addresses>;
}

/// IP version 4 (RFC 791).
pub struct V4;

impl IpVersion for V4 {
    const PROTOCOL: Protocol = Protocol::IPV4;

    type Addresses = [u8; 8];

    #[inline(always)]
    fn addresses(frame: &impl Frame) -> Option<Self::Addresses> {
        frame
            .whole()
            .read(Headers::ETHERNET + offset_of!(Ipv4Hdr, src_addr))
    }
}

/// IP version 6 (RFC 8200).
pub struct V6;

impl IpVersion for V6 {
    const PROTOCOL: Protocol = Protocol::IPV6;

    type Addresses = [u8; 32];

    #[inline(always)]
    fn addresses(frame: &impl Frame) -> Option<Self::Addresses> {
        frame
            .whole()
            .read(Headers::ETHERNET + offset_of!(Ipv6Hdr, src_addr))
    }
}

/// The network header of a packet in which a router changes the TTL or hop limit, and nothing else.
pub struct Network {
    /// The source address, on the packet's VLAN.
    pub sender: NeighborKey,
    /// The destination address, on the packet's VLAN.
    pub receiver: NeighborKey,
    /// The IANA number of the protocol above; never an extension header's.
    pub protocol: u8,
    /// TTL or hop limit.
    pub hops: u8,
    /// IPv4's identification, host byte order; 0 for IPv6, which has none.
    pub identification: u16,
    /// Bytes of the header.
    pub header: usize,
    /// Bytes behind the header, by its own length field; 0 where the field has no room for the number (BIG TCP).
    pub payload: usize,
}

impl Network {
    /// Reads the header; `None` for what is left to a real router: options, extension headers, fragments, link-local
    /// addresses, and whatever is not IP.
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
        /// The flag "don't fragment" (RFC 791 clause 3.1), in the first byte of `frags`.
        const DONT_FRAGMENT: u8 = 0x40;
        let ip: [u8; Ipv4Hdr::LEN] = frame.read(at)?;
        let vihl = ip[offset_of!(Ipv4Hdr, vihl)];
        let frags: [u8; 2] = field!(ip, Ipv4Hdr.frags);
        let is_whole = frags[0] & !DONT_FRAGMENT == 0 && frags[1] == 0;
        let source: [u8; 4] = field!(ip, Ipv4Hdr.src_addr);
        let destination = field!(ip, Ipv4Hdr.dst_addr);
        // RFC 3927 clause 7.
        let is_link_local = source[0] == 169 && source[1] == 254;
        let length = u16::from_be_bytes(field!(ip, Ipv4Hdr.tot_len)) as usize;
        (vihl == VIHL_WITHOUT_OPTIONS && is_whole && !is_link_local).then(|| Self {
            sender: NeighborKey::ipv4(vid, source),
            receiver: NeighborKey::ipv4(vid, destination),
            protocol: ip[offset_of!(Ipv4Hdr, proto)],
            hops: ip[offset_of!(Ipv4Hdr, ttl)],
            identification: u16::from_be_bytes(field!(ip, Ipv4Hdr.id)),
            header: Ipv4Hdr::LEN,
            payload: length.saturating_sub(Ipv4Hdr::LEN),
        })
    }

    #[inline(always)]
    fn ipv6(frame: &impl Frame, at: usize, vid: Vid) -> Option<Self> {
        let ip: [u8; BEFORE_ADDRESSES] = frame.read(at)?;
        let next_hdr = ip[offset_of!(Ipv6Hdr, next_hdr)];
        // Any other number may be an extension header's.
        let has_no_extensions = matches!(
            next_hdr,
            IPPROTO_TCP | IPPROTO_UDP | IPPROTO_ICMPV6 | IPPROTO_SCTP
        );
        if ip[offset_of!(Ipv6Hdr, vcf)] >> 4 != 6 || !has_no_extensions {
            return None;
        }
        let source: [u8; 16] = frame.read(at + offset_of!(Ipv6Hdr, src_addr))?;
        let destination = frame.read(at + offset_of!(Ipv6Hdr, dst_addr))?;
        // RFC 4291 clause 2.5.6.
        let is_link_local = source[0] == 0xfe && source[1] & 0xc0 == 0x80;
        (!is_link_local).then_some(Self {
            sender: NeighborKey::ipv6(vid, source),
            receiver: NeighborKey::ipv6(vid, destination),
            protocol: next_hdr,
            hops: ip[offset_of!(Ipv6Hdr, hop_limit)],
            identification: 0,
            header: Ipv6Hdr::LEN,
            payload: u16::from_be_bytes(field!(ip, Ipv6Hdr.payload_len)) as usize,
        })
    }
}

/// The bytes of an IPv6 header before its addresses, for which a BPF program's stack has no room at the same time.
pub const BEFORE_ADDRESSES: usize = offset_of!(Ipv6Hdr, src_addr);

/// Version 4, and a header length of five words.
pub const VIHL_WITHOUT_OPTIONS: u8 = 0x45;

/// Source and destination of a packet that a router may forward, as addresses on a VLAN.
#[inline(always)]
pub fn ends(frame: &impl Frame, headers: &Headers, vid: Vid) -> Option<(NeighborKey, NeighborKey)> {
    let network = Network::read(frame, headers, vid)?;
    (network.hops > 1).then_some((network.sender, network.receiver))
}

//! Protocol headers, read by their types in `network-types`. The fields have the names of Linux, which for the most part
//! are the RFCs'.
//!
//! A header is read as bytes, and [`field!`] takes its fields from them. A single field is read by
//! `frame.read(at + offset_of!(Ipv4Hdr, dst_addr))`. Headers are never turned into values of their types: LLVM would keep
//! those in registers and spill them on the stack, of which a BPF program has 512 bytes.

use network_types::ip::IpProto;

pub const IPPROTO_HOPOPTS: u8 = IpProto::HopOpt as u8;
pub const IPPROTO_ICMP: u8 = IpProto::Icmp as u8;
pub const IPPROTO_IPIP: u8 = IpProto::Ipv4 as u8;
pub const IPPROTO_TCP: u8 = IpProto::Tcp as u8;
pub const IPPROTO_UDP: u8 = IpProto::Udp as u8;
pub const IPPROTO_IPV6: u8 = IpProto::Ipv6 as u8;
pub const IPPROTO_ROUTING: u8 = IpProto::Ipv6Route as u8;
pub const IPPROTO_GRE: u8 = IpProto::Gre as u8;
pub const IPPROTO_ESP: u8 = IpProto::Esp as u8;
pub const IPPROTO_AH: u8 = IpProto::Ah as u8;
pub const IPPROTO_ICMPV6: u8 = IpProto::Ipv6Icmp as u8;
pub const IPPROTO_DSTOPTS: u8 = IpProto::Ipv6Opts as u8;
pub const IPPROTO_SCTP: u8 = IpProto::Sctp as u8;
pub const IPPROTO_MH: u8 = IpProto::MobilityHeader as u8;
pub const IPPROTO_MPLS: u8 = IpProto::Mpls as u8;
pub const IPPROTO_ETHERNET: u8 = IpProto::EthernetInIpv4 as u8;

/// A DHCP message (RFC 2131 clause 2) up to its client's hardware address.
#[repr(C)]
pub struct DhcpHdr {
    pub op: u8,
    pub htype: u8,
    pub hlen: u8,
    pub hops: u8,
    pub xid: [u8; 4],
    pub secs: [u8; 2],
    pub flags: [u8; 2],
    pub ciaddr: [u8; 4],
    pub yiaddr: [u8; 4],
    pub siaddr: [u8; 4],
    pub giaddr: [u8; 4],
    pub chaddr: [u8; 16],
}

/// A field of a header that was read as bytes: `field!(bytes, Ipv4Hdr.dst_addr)` is the array of its bytes.
macro_rules! field {
    ($bytes:ident, $header:ident.$field:ident) => {
        $crate::headers::part(&$bytes, core::mem::offset_of!($header, $field))
    };
}
pub(crate) use field;

/// `N` bytes at a place that the slice has.
#[inline(always)]
pub fn part<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    let mut part = [0; N];
    // A slice has a check, and where LLVM does not see that it holds, it leaves a panic in the program.
    for (place, byte) in part.iter_mut().enumerate() {
        *byte = bytes[offset + place];
    }
    part
}

//! What a header says of the next one: an EtherType or, below those, the IANA number of an IP protocol.

use crate::{
    headers::{
        IPPROTO_AH, IPPROTO_DSTOPTS, IPPROTO_ESP, IPPROTO_ETHERNET, IPPROTO_GRE, IPPROTO_HOPOPTS,
        IPPROTO_IPIP, IPPROTO_IPV6, IPPROTO_MPLS, IPPROTO_ROUTING, IPPROTO_SCTP, IPPROTO_TCP,
        IPPROTO_UDP,
    },
    layer2::Protocol,
};

pub const HOP_BY_HOP: u16 = IPPROTO_HOPOPTS as u16;
pub const IPV4_IN_IP: u16 = IPPROTO_IPIP as u16;
pub const TCP: u16 = IPPROTO_TCP as u16;
pub const UDP: u16 = IPPROTO_UDP as u16;
pub const IPV6_IN_IP: u16 = IPPROTO_IPV6 as u16;
pub const ROUTING: u16 = IPPROTO_ROUTING as u16;
pub const GRE: u16 = IPPROTO_GRE as u16;
pub const ESP: u16 = IPPROTO_ESP as u16;
pub const AH: u16 = IPPROTO_AH as u16;
pub const DESTINATION: u16 = IPPROTO_DSTOPTS as u16;
pub const SCTP: u16 = IPPROTO_SCTP as u16;
pub const MPLS_IN_IP: u16 = IPPROTO_MPLS as u16;
pub const ETHERNET_IN_IP: u16 = IPPROTO_ETHERNET as u16;

pub const IPV4: u16 = Protocol::IPV4.number();
pub const IPV6: u16 = Protocol::IPV6.number();
/// Transparent Ethernet bridging (RFC 1701).
pub const ETHERNET: u16 = 0x6558;
pub const MPLS: u16 = 0x8847;
pub const MPLS_MULTICAST: u16 = 0x8848;

/// The payload, for which there is no number; IANA keeps this one free.
pub const PAYLOAD: u16 = 0xffff;

//! What a frame says of addresses: ARP, IPv6 neighbour discovery, DHCP.

use core::mem::offset_of;

use network_types::{
    arp::ArpHdr,
    icmp::Icmpv6Hdr,
    ip::{Ipv4Hdr, Ipv6Hdr},
    udp::UdpHdr,
};

use super::ip::{BEFORE_ADDRESSES, VIHL_WITHOUT_OPTIONS};
use crate::{
    abi::{Cast, Mac, NeighborKey, Vid},
    frame::Frame,
    headers::{
        DhcpHdr, IPPROTO_AH, IPPROTO_DSTOPTS, IPPROTO_HOPOPTS, IPPROTO_ICMPV6, IPPROTO_MH,
        IPPROTO_ROUTING, IPPROTO_TCP, IPPROTO_UDP, field, part,
    },
    layer2::{Headers, Protocol},
    message::Message,
};

// Types of ICMPv6 (RFC 4861 clause 4).
const ROUTER_SOLICITATION: u8 = 133;
const NEIGHBOR_SOLICITATION: u8 = 135;
const NEIGHBOR_ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;

/// Where a neighbour solicitation and an advertisement have their target, from the IPv6 header on.
const ND_TARGET: usize = Ipv6Hdr::LEN + Icmpv6Hdr::LEN;

impl Message {
    /// Reads what a frame says.
    #[inline(always)]
    pub fn of(frame: &impl Frame, headers: &Headers, vid: Vid) -> Self {
        let mut message = Self::default();
        message.read(frame, headers, vid);
        message
    }

    /// Reads what a frame says into a message that is all zero. BPF stacks are small, and the caller has a place for the
    /// message already.
    #[inline(always)]
    pub fn read(&mut self, frame: &impl Frame, headers: &Headers, vid: Vid) {
        // A frame that cannot be read to its end leaves the message as it was.
        let _ = match headers.protocol {
            Protocol::ARP => self.arp(frame.whole(), headers, vid),
            Protocol::IPV6 => self.neighbor_discovery(frame, headers, vid),
            Protocol::IPV4 if headers.cast == Cast::Broadcast => self.dhcp(frame.whole(), headers),
            _ => None,
        };
    }

    /// ARP for IPv4 over Ethernet (RFC 826). A request by broadcast asks for its target; so does a probe (RFC 5227 clause
    /// 2.1.1), whose sender has no address yet. A request or a reply for the sender's own address announces it.
    #[inline(always)]
    fn arp(&mut self, frame: &impl Frame, headers: &Headers, vid: Vid) -> Option<()> {
        const ETHERNET: [u8; 2] = [0, 1];
        const IEEE_802: [u8; 2] = [0, 6];
        /// `ptype`, `hlen` and `plen`, and the upper byte of `oper`: IPv4, addresses of 6 and 4 bytes.
        const IPV4: [u8; 5] = [0x08, 0x00, 6, 4, 0];
        const REQUEST: [u8; 2] = [0, 1];
        const REPLY: [u8; 2] = [0, 2];
        let arp: [u8; ArpHdr::LEN] = frame.read(headers.network)?;
        let htype: [u8; 2] = field!(arp, ArpHdr.htype);
        // Linux takes the hardware type of IEEE 802 for Ethernet's (`arp_process`), but nobody sends it.
        if !matches!(htype, ETHERNET | IEEE_802) || field!(arp, ArpHdr.ptype) != IPV4 {
            return None;
        }
        let oper: [u8; 2] = field!(arp, ArpHdr.oper);
        let spa: [u8; 4] = field!(arp, ArpHdr.spa);
        let tpa: [u8; 4] = field!(arp, ArpHdr.tpa);
        let is_broadcast = headers.cast == Cast::Broadcast && htype == ETHERNET;
        let is_for_itself = spa == tpa;
        let asks = is_broadcast && oper == REQUEST && !is_for_itself;
        let announces = is_broadcast && matches!(oper, REQUEST | REPLY) && is_for_itself;
        write(&mut self.target, vid, tpa, asks);
        write(&mut self.sender, vid, spa, spa != [0; 4]);
        self.mac = Mac(field!(arp, ArpHdr.sha));
        self.announces = announces.into();
        Some(())
    }

    /// IPv6 neighbour discovery (RFC 4861 clause 4). An advertisement claims its target. A solicitation claims its source
    /// address, which is unspecified during duplicate address detection (RFC 4862). Messages behind extension headers are
    /// not read: nobody sends them.
    #[inline(always)]
    fn neighbor_discovery(
        &mut self,
        frame: &impl Frame,
        headers: &Headers,
        vid: Vid,
    ) -> Option<()> {
        let source = frame.source()?;
        let destination = frame.destination()?;
        let (frame, network) = (frame.whole(), headers.network);
        let ip: [u8; BEFORE_ADDRESSES] = frame.read(network)?;
        let version = ip[offset_of!(Ipv6Hdr, vcf)] >> 4;
        let next_hdr = ip[offset_of!(Ipv6Hdr, next_hdr)];
        let hop_limit = ip[offset_of!(Ipv6Hdr, hop_limit)];
        let length = u16::from_be_bytes(field!(ip, Ipv6Hdr.payload_len)) as usize;
        // A hop limit of 255 shows that no router has forwarded the packet (RFC 4861 clause 3.1).
        if version != 6 || next_hdr != IPPROTO_ICMPV6 || hop_limit != 255 {
            return None;
        }
        let [kind, code] = frame.read(network + Ipv6Hdr::LEN + offset_of!(Icmpv6Hdr, type_))?;
        let is_read = matches!(
            kind,
            ROUTER_SOLICITATION | NEIGHBOR_SOLICITATION | NEIGHBOR_ADVERTISEMENT
        );
        if !is_read || code != 0 {
            return None;
        }
        let has_target = kind == NEIGHBOR_SOLICITATION || kind == NEIGHBOR_ADVERTISEMENT;
        if has_target && length < Icmpv6Hdr::LEN + size_of::<[u8; 16]>() {
            return None;
        }
        let is_advertisement = kind == NEIGHBOR_ADVERTISEMENT;
        let source_at = offset_of!(Ipv6Hdr, src_addr);
        let (target_at, claimed_at) = (
            if has_target { ND_TARGET } else { source_at },
            if is_advertisement {
                ND_TARGET
            } else {
                source_at
            },
        );
        let target: [u8; 16] = frame.read(network + target_at)?;
        let claimed: [u8; 16] = frame.read(network + claimed_at)?;
        let group = frame.read(network + offset_of!(Ipv6Hdr, dst_addr))?;
        let is_group = headers.cast == Cast::Multicast;
        let asks = is_group
            && kind == NEIGHBOR_SOLICITATION
            && is_solicited_node_group(&target, group, destination.0);
        self.target = NeighborKey::ipv6(vid, target);
        self.target.version = if asks { 6 } else { 0 };
        self.sender = NeighborKey::ipv6(vid, claimed);
        self.sender.version = if claimed == [0; 16] { 0 } else { 6 };
        self.mac = source;
        self.announces = (is_group && is_advertisement).into();
        Some(())
    }

    /// A DHCP reply (RFC 2131 clauses 2 and 4.1) that is broadcast because its client has no address yet. Fragments and
    /// IP options are not read.
    #[inline(always)]
    fn dhcp(&mut self, frame: &impl Frame, headers: &Headers) -> Option<()> {
        /// From the server's port to the client's.
        const PORTS: [u8; 4] = [0, 67, 0, 68];
        /// `op`, `htype` and `hlen`: a reply, Ethernet, addresses of 6 bytes.
        const BOOTREPLY: [u8; 3] = [2, 1, 6];
        /// All but the flag "don't fragment".
        const FRAGMENT: u16 = 0x3fff;
        let ip: [u8; Ipv4Hdr::LEN + PORTS.len()] = frame.read(headers.network)?;
        let is_fragment = u16::from_be_bytes(field!(ip, Ipv4Hdr.frags)) & FRAGMENT != 0;
        if ip[offset_of!(Ipv4Hdr, vihl)] != VIHL_WITHOUT_OPTIONS
            || is_fragment
            || ip[offset_of!(Ipv4Hdr, proto)] != IPPROTO_UDP
            || field!(ip, Ipv4Hdr.dst_addr) != [0xff; 4]
        {
            return None;
        }
        let dhcp = headers.network + Ipv4Hdr::LEN + UdpHdr::LEN;
        if part(&ip, Ipv4Hdr::LEN) != PORTS
            || frame.read(dhcp + offset_of!(DhcpHdr, op))? != BOOTREPLY
        {
            return None;
        }
        self.client = Mac(frame.read(dhcp + offset_of!(DhcpHdr, chaddr))?);
        Some(())
    }
}

/// Writes an IPv4 address into a key that is all zero. Without a version, the key says nothing. It is written byte by
/// byte: of a whole key LLVM makes a call with a stack of its own.
#[inline(always)]
fn write(key: &mut NeighborKey, vid: Vid, address: [u8; 4], has_version: bool) {
    for (place, byte) in address.into_iter().enumerate() {
        key.address[place] = byte;
    }
    key.vid = vid.get();
    key.version = if has_version { 4 } else { 0 };
}

/// Whether a packet goes to the solicited-node group of an address, and to the group's MAC (RFC 4861 clause 7.1.1).
#[inline(always)]
fn is_solicited_node_group(target: &[u8; 16], group: [u8; 16], mac: [u8; 6]) -> bool {
    /// ff02::1:ff00:0/104 (RFC 4291 clause 2.7.1), and its MACs (RFC 2464 clause 7).
    const GROUP: [u8; 13] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff];
    const GROUP_MAC: [u8; 3] = [0x33, 0x33, 0xff];
    let low: [u8; 3] = part(target, 13);
    part(&group, 0) == GROUP
        && part(&group, 13) == low
        && part(&mac, 0) == GROUP_MAC
        && part(&mac, 3) == low
}

/// Whether a packet is ICMPv6. It is not looked for behind extension headers, with which nobody sends neighbour
/// discovery.
#[inline(always)]
pub fn is_icmpv6(frame: &impl Frame, headers: &Headers) -> bool {
    headers.protocol == Protocol::IPV6
        && frame
            .whole()
            .read(headers.network + offset_of!(Ipv6Hdr, next_hdr))
            == Some([IPPROTO_ICMPV6])
}

/// Whether an IPv6 packet of which no message was read may have neighbour discovery all the same: a message that only
/// routers send, or one behind extension headers, which Linux skips (`icmpv6_rcv`). Fragments can have none (RFC 6980).
#[inline(always)]
pub fn hides(frame: &impl Frame, headers: &Headers) -> bool {
    const EXTENSIONS: [u8; 4] = [IPPROTO_ROUTING, IPPROTO_AH, IPPROTO_DSTOPTS, IPPROTO_MH];
    let frame = frame.whole();
    let above = headers.network + Ipv6Hdr::LEN;
    let Some([next, _]) = frame.read(headers.network + offset_of!(Ipv6Hdr, next_hdr)) else {
        return true;
    };
    match next {
        IPPROTO_ICMPV6 => {
            matches!(frame.read(above), Some([ROUTER_SOLICITATION..=REDIRECT, _]))
        }
        // A buffer of more than 64 KB of TCP has its length in a hop-by-hop option (BIG TCP).
        IPPROTO_HOPOPTS => !matches!(frame.read(above), Some([IPPROTO_TCP, _])),
        next => EXTENSIONS.contains(&next),
    }
}

//! Whom a group frame is for, where it is for one alone: ARP, IPv6 neighbour discovery, DHCP. Everything
//! else that is sent to a group is for the group.

use crate::{Cast, Frame, Headers, Mac, NeighborKey, Protocol, Vid};

/// The one that a group frame seeks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sought {
    /// Whoever has an address: an ARP request or a neighbour solicitation.
    Address(NeighborKey),
    /// Whoever has a MAC: a DHCP reply.
    Mac(Mac),
}

/// Finds it; `None` for what concerns everyone, and for what can't be read.
#[inline(always)]
pub fn sought(frame: &impl Frame, headers: &Headers, vid: Vid) -> Option<Sought> {
    let frame = frame.whole();
    match (headers.cast, headers.protocol) {
        (Cast::Broadcast, Protocol::ARP) => arp(frame, headers, vid),
        (Cast::Broadcast, Protocol::IPV4) => dhcp(frame, headers),
        (Cast::Multicast, Protocol::IPV6) => solicitation(frame, headers, vid),
        _ => None,
    }
}

/// An ARP request (RFC 826) for IPv4 over Ethernet, also a probe (RFC 5227 clause 2.1.1), whose sender
/// has no address yet. Not an announcement: that asks for its own sender.
#[inline(always)]
fn arp(frame: &impl Frame, headers: &Headers, vid: Vid) -> Option<Sought> {
    // Ethernet, IPv4, addresses of 6 and 4 bytes, a request.
    const REQUEST: [u8; 8] = [0, 1, 8, 0, 6, 4, 0, 1];
    let packet: [u8; 28] = frame.read(headers.network)?;
    let (sender, target) = (part::<4>(&packet, 14), part::<4>(&packet, 24));
    (part(&packet, 0) == REQUEST && sender != target)
        .then(|| Sought::Address(NeighborKey::ipv4(vid, target)))
}

/// An IPv6 neighbour solicitation (RFC 4861 clauses 4.3 and 7.1.1) to the solicited-node group of its
/// target, also one for duplicate address detection (RFC 4862), whose sender has no address yet. Not
/// behind extension headers, with which nobody sends one.
#[inline(always)]
fn solicitation(frame: &impl Frame, headers: &Headers, vid: Vid) -> Option<Sought> {
    const ICMPV6: u8 = 58;
    const SOLICITATION: [u8; 2] = [135, 0];
    /// ff02::1:ff00:0/104 (RFC 4291 clause 2.7.1), and its MACs (RFC 2464 clause 7).
    const GROUP: [u8; 13] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff];
    const GROUP_MAC: [u8; 3] = [0x33, 0x33, 0xff];
    let network = headers.network;
    let [version, .., length_high, length_low, next_header, hop_limit] =
        frame.read::<8>(network)?;
    let length = u16::from_be_bytes([length_high, length_low]);
    if version >> 4 != 6 || length < 24 || next_header != ICMPV6 || hop_limit != 255 {
        return None;
    }
    if frame.read(network + 40)? != SOLICITATION {
        return None;
    }
    let target: [u8; 16] = frame.read(network + 48)?;
    let group: [u8; 16] = frame.read(network + 24)?;
    let mac: [u8; 6] = frame.read(0)?;
    let low: [u8; 3] = part(&target, 13);
    let is_to_its_group = part(&group, 0) == GROUP
        && part(&group, 13) == low
        && part(&mac, 0) == GROUP_MAC
        && part(&mac, 3) == low;
    is_to_its_group.then(|| Sought::Address(NeighborKey::ipv6(vid, target)))
}

/// A DHCP reply (RFC 2131 clauses 2 and 4.1) that is broadcast because its client has no address yet. Not
/// in fragments, nor behind IP options.
#[inline(always)]
fn dhcp(frame: &impl Frame, headers: &Headers) -> Option<Sought> {
    const UDP: u8 = 17;
    /// From the server's port to the client's.
    const PORTS: [u8; 4] = [0, 67, 0, 68];
    /// BOOTREPLY, Ethernet, addresses of 6 bytes.
    const REPLY: [u8; 3] = [2, 1, 6];
    let network = headers.network;
    let ip: [u8; 20] = frame.read(network)?;
    let fragment = u16::from_be_bytes(part(&ip, 6)) & 0x3fff;
    if ip[0] != 0x45 || fragment != 0 || ip[9] != UDP || part(&ip, 16) != [0xff; 4] {
        return None;
    }
    if frame.read(network + 20)? != PORTS || frame.read(network + 28)? != REPLY {
        return None;
    }
    frame
        .read(network + 56)
        .map(|client| Sought::Mac(Mac(client)))
}

/// Whether a group frame tells everyone of its sender's address: gratuitous ARP (RFC 5227 clause 3) or a
/// neighbour advertisement (RFC 4861 clause 4.4).
#[inline(always)]
pub fn announces(frame: &impl Frame, headers: &Headers) -> bool {
    match (headers.cast, headers.protocol) {
        (Cast::Broadcast, Protocol::ARP) => is_gratuitous(frame, headers),
        (Cast::Multicast, Protocol::IPV6) => is_advertisement(frame, headers),
        _ => false,
    }
}

#[inline(always)]
fn is_gratuitous(frame: &impl Frame, headers: &Headers) -> bool {
    let Some(packet) = frame.read::<28>(headers.network) else {
        return false;
    };
    // A request or a reply.
    let is_arp = part(&packet, 0) == [0, 1, 8, 0, 6, 4, 0] && matches!(packet[7], 1 | 2);
    is_arp && part::<4>(&packet, 14) == part(&packet, 24)
}

#[inline(always)]
fn is_advertisement(frame: &impl Frame, headers: &Headers) -> bool {
    let Some(packet) = frame.read::<42>(headers.network) else {
        return false;
    };
    packet[0] >> 4 == 6 && part(&packet, 6) == [58, 255] && part(&packet, 40) == [136, 0]
}

/// `N` bytes of a packet, at a place that the packet has.
#[inline(always)]
fn part<const N: usize>(packet: &[u8], offset: usize) -> [u8; N] {
    let mut bytes = [0; N];
    // Not a slice with a check: where it can't be seen to hold, LLVM would leave a panic in the program.
    for (place, byte) in bytes.iter_mut().enumerate() {
        *byte = packet[offset + place];
    }
    bytes
}

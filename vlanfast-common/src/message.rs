//! What a frame says of addresses: ARP, IPv6 neighbour discovery, DHCP.

use crate::{Cast, Frame, Headers, Mac, NeighborKey, Protocol, Vid};

/// Whom a frame asks for, and which address its sender claims. A frame that is about anything else, or can't be
/// read, does neither.
///
/// No options inside, and no room between: where LLVM leaves bytes undefined, the verifier sees a register or a place on
/// the stack that was never written. 54 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// The address that a group frame asks for; no address has version 0.
    target: NeighborKey,
    /// The client of a DHCP reply; 0 is nobody's MAC.
    client: Mac,
    /// The address that the sender says he has, and the MAC that he gives for it.
    sender: NeighborKey,
    mac: Mac,
    /// 1 where the frame only tells a group about that address, else 0. Two bytes, so that there is no padding.
    announces: u16,
}

const _: () = assert!(size_of::<Message>() == 54);

/// The one that a group frame seeks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Whoever has an address: an ARP request or a neighbour solicitation.
    Address(NeighborKey),
    /// Whoever has a MAC: a DHCP reply.
    Mac(Mac),
}

impl Message {
    /// Reads what a frame says.
    #[inline(always)]
    pub fn of(frame: &impl Frame, headers: &Headers, vid: Vid) -> Self {
        let mut message = Self::default();
        message.read(frame, headers, vid);
        message
    }

    /// Reads it into a message that says nothing yet: BPF stacks are small, and the caller has a place for it.
    #[inline(always)]
    pub fn read(&mut self, frame: &impl Frame, headers: &Headers, vid: Vid) {
        // What can't be read to its end has written nothing.
        let _ = match headers.protocol {
            Protocol::ARP => self.arp(frame.whole(), headers, vid),
            Protocol::IPV6 => self.discovery(frame, headers, vid),
            Protocol::IPV4 if headers.cast == Cast::Broadcast => self.dhcp(frame.whole(), headers),
            _ => None,
        };
    }

    /// The one that a group frame is for.
    #[inline(always)]
    pub fn asks(&self) -> Option<Target> {
        if self.target.version != 0 {
            return Some(Target::Address(self.target));
        }
        (self.client != Mac::default()).then_some(Target::Mac(self.client))
    }

    /// The address that the sender says he has, and the MAC that he gives for it.
    #[inline(always)]
    pub fn says(&self) -> Option<(NeighborKey, Mac)> {
        (self.sender.version != 0).then_some((self.sender, self.mac))
    }

    /// Whether the frame only tells a group about that address, and asks nobody: gratuitous ARP (RFC 5227 clause 3), or a neighbour
    /// advertisement (RFC 4861 clause 4.4).
    #[inline(always)]
    pub const fn announces(&self) -> bool {
        self.announces != 0
    }

    /// ARP for IPv4 over Ethernet (RFC 826). A request by broadcast asks, also as a probe (RFC 5227 clause 2.1.1), whose
    /// sender has no address yet; one for the sender's own address announces.
    #[inline(always)]
    fn arp(&mut self, frame: &impl Frame, headers: &Headers, vid: Vid) -> Option<()> {
        /// IPv4, addresses of 6 and 4 bytes.
        const FORM: [u8; 5] = [8, 0, 6, 4, 0];
        const REQUEST: u8 = 1;
        const REPLY: u8 = 2;
        let packet: [u8; 28] = frame.read(headers.network)?;
        // Linux takes the hardware type of IEEE 802 for Ethernet's (`arp_process`), but nobody sends it.
        if packet[0] != 0 || !matches!(packet[1], 1 | 6) || part(&packet, 2) != FORM {
            return None;
        }
        let (sender, target) = (part::<4>(&packet, 14), part::<4>(&packet, 24));
        let is_broadcast = headers.cast == Cast::Broadcast && packet[1] == 1;
        let asks = is_broadcast && packet[7] == REQUEST && sender != target;
        let announces = is_broadcast && matches!(packet[7], REQUEST | REPLY) && sender == target;
        // Byte by byte into what is zero: LLVM makes a call with a stack of its own of more.
        write(&mut self.target, vid, target, asks);
        write(&mut self.sender, vid, sender, sender != [0; 4]);
        self.mac = Mac(part(&packet, 8));
        self.announces = announces.into();
        Some(())
    }

    /// IPv6 neighbour discovery (RFC 4861 clause 4): an advertisement says that the sender has its target, and a
    /// solicitation, that he has the source address, which there is none of in duplicate address detection (RFC 4862). Not
    /// behind extension headers, with which nobody sends it.
    #[inline(always)]
    fn discovery(&mut self, frame: &impl Frame, headers: &Headers, vid: Vid) -> Option<()> {
        const ROUTER_SOLICITATION: u8 = 133;
        const SOLICITATION: u8 = 135;
        const ADVERTISEMENT: u8 = 136;
        let source = Mac(frame.read(6)?);
        let destination: [u8; 6] = frame.read(0)?;
        let (frame, network) = (frame.whole(), headers.network);
        let [version, .., length_high, length_low, next_header, hop_limit] =
            frame.read::<8>(network)?;
        let length = u16::from_be_bytes([length_high, length_low]);
        if version >> 4 != 6 || next_header != ICMPV6 || hop_limit != 255 {
            return None;
        }
        let [kind, code] = frame.read(network + 40)?;
        if !matches!(kind, ROUTER_SOLICITATION | SOLICITATION | ADVERTISEMENT) || code != 0 {
            return None;
        }
        let has_target = kind == SOLICITATION || kind == ADVERTISEMENT;
        if has_target && length < 24 {
            return None;
        }
        let is_advertisement = kind == ADVERTISEMENT;
        let (target_at, said_at) = (
            if has_target { 48 } else { 8 },
            if is_advertisement { 48 } else { 8 },
        );
        let target: [u8; 16] = frame.read(network + target_at)?;
        let said: [u8; 16] = frame.read(network + said_at)?;
        let group = frame.read(network + 24)?;
        let is_group = headers.cast == Cast::Multicast;
        let asks = is_group && kind == SOLICITATION && is_to_group_of(&target, group, destination);
        self.target = NeighborKey::ipv6(vid, target);
        self.target.version = if asks { 6 } else { 0 };
        self.sender = NeighborKey::ipv6(vid, said);
        self.sender.version = if said == [0; 16] { 0 } else { 6 };
        self.mac = source;
        self.announces = (is_group && is_advertisement).into();
        Some(())
    }

    /// A DHCP reply (RFC 2131 clauses 2 and 4.1) that is broadcast because its client has no address yet. Not
    /// in fragments, nor behind IP options.
    #[inline(always)]
    fn dhcp(&mut self, frame: &impl Frame, headers: &Headers) -> Option<()> {
        const UDP: u8 = 17;
        /// From the server's port to the client's.
        const PORTS: [u8; 4] = [0, 67, 0, 68];
        /// BOOTREPLY, Ethernet, addresses of 6 bytes.
        const REPLY: [u8; 3] = [2, 1, 6];
        let network = headers.network;
        // With the ports behind it.
        let ip: [u8; 24] = frame.read(network)?;
        let fragment = u16::from_be_bytes(part(&ip, 6)) & 0x3fff;
        if ip[0] != 0x45 || fragment != 0 || ip[9] != UDP || part(&ip, 16) != [0xff; 4] {
            return None;
        }
        if part(&ip, 20) != PORTS || frame.read(network + 28)? != REPLY {
            return None;
        }
        self.client = Mac(frame.read(network + 56)?);
        Some(())
    }
}

/// Writes an IPv4 address into a key that is zero; without a version, it says nothing.
#[inline(always)]
fn write(key: &mut NeighborKey, vid: Vid, address: [u8; 4], says: bool) {
    for (place, byte) in address.into_iter().enumerate() {
        key.address[place] = byte;
    }
    key.vid = vid.get();
    key.version = if says { 4 } else { 0 };
}

/// Whether these are the solicited-node group of an address and its MAC (RFC 4861 clause 7.1.1).
#[inline(always)]
fn is_to_group_of(target: &[u8; 16], group: [u8; 16], mac: [u8; 6]) -> bool {
    /// ff02::1:ff00:0/104 (RFC 4291 clause 2.7.1), and its MACs (RFC 2464 clause 7).
    const GROUP: [u8; 13] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff];
    const GROUP_MAC: [u8; 3] = [0x33, 0x33, 0xff];
    let low: [u8; 3] = part(target, 13);
    part(&group, 0) == GROUP
        && part(&group, 13) == low
        && part(&mac, 0) == GROUP_MAC
        && part(&mac, 3) == low
}

const ICMPV6: u8 = 58;

/// Whether there may be neighbour discovery in an IPv6 packet of which no message was read: what routers alone send, or
/// what is behind extension headers, which Linux skips (`icmpv6_rcv`). Fragments can't have any (RFC 6980).
#[inline(always)]
pub fn hides(frame: &impl Frame, headers: &Headers) -> bool {
    const TCP: u8 = 6;
    /// Hop-by-hop, routing, authentication, destination and mobility options.
    const HOP_BY_HOP: u8 = 0;
    const HEADERS: [u8; 4] = [43, 51, 60, 135];
    let frame = frame.whole();
    let Some([next, _]) = frame.read(headers.network + 6) else {
        return true;
    };
    match next {
        ICMPV6 => matches!(frame.read(headers.network + 40), Some([133..=137, _])),
        // The length of a buffer of more than 64 KB of TCP (BIG TCP).
        HOP_BY_HOP => !matches!(frame.read(headers.network + 40), Some([TCP, _])),
        next => HEADERS.contains(&next),
    }
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

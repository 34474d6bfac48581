//! Frames that are built from what they say.

use proptest::prelude::*;
use vlanfast_common::{Bytes, Tag};

use crate::two_vlans::{LINK_LOCAL, ROUTER, STATIONS, ipv4, ipv6, mac, vlan};

/// An IP packet.
#[derive(Clone, Copy, Debug)]
pub struct Packet {
    pub version: u16,
    pub from: u8,
    pub to: u8,
    pub hops: u8,
    pub rest: Rest,
    length: u8,
}

/// What else there is about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// TCP, UDP or ICMP, whole.
    Plain(u8),
    Fragment,
    /// In IPv6, hop-by-hop.
    Options,
}

impl Packet {
    fn bytes(&self) -> Vec<u8> {
        let is_fragment = self.rest == Rest::Fragment;
        let protocol = match (self.rest, self.version) {
            (Rest::Plain(protocol), _) => protocol,
            (_, 4) => 17,
            (Rest::Fragment, _) => 44,
            (Rest::Options, _) => 0,
        };
        let payload = vec![0x55; self.length.into()];
        if self.version == 4 {
            let head = if self.rest == Rest::Options {
                0x46
            } else {
                0x45
            };
            let more = if is_fragment { 0x20 } else { 0x40 };
            let length = 20 + self.length;
            let start = [
                8, 0, head, 0, 0, length, 0, 0, more, 0, self.hops, protocol, 0, 0,
            ];
            [&start[..], &ipv4(self.from), &ipv4(self.to), &payload].concat()
        } else {
            let start = [
                0x86,
                0xdd,
                0x60,
                0,
                0,
                0,
                0,
                self.length,
                protocol,
                self.hops,
            ];
            [&start[..], &ipv6(self.from), &ipv6(self.to), &payload].concat()
        }
    }
}

/// What a frame says.
#[derive(Clone, Copy, Debug)]
pub enum Message {
    Arp {
        is_request: bool,
        sender: u8,
        target: u8,
    },
    Solicitation {
        target: u8,
    },
    Advertisement {
        target: u8,
    },
    /// A DHCP reply for a client.
    Dhcp(u8),
    Packet(Packet),
}

impl Message {
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Arp { .. } => "ARP",
            Self::Solicitation { .. } => "solicitation",
            Self::Advertisement { .. } => "advertisement",
            Self::Dhcp(_) => "DHCP",
            Self::Packet(Packet { version: 4, .. }) => "IPv4",
            Self::Packet(_) => "IPv6",
        }
    }

    /// From the type field on, and the MAC of the group that it is sent to if it is sent to one.
    fn bytes(&self) -> (Vec<u8>, [u8; 6]) {
        const BROADCAST: [u8; 6] = [0xff; 6];
        let discovery = |kind, group: [u8; 16], target| {
            let ip = [0x86, 0xdd, 0x60, 0, 0, 0, 0, 24, 58, 255];
            let icmp = [kind, 0, 0, 0, 0, 0, 0, 0];
            let [.., a, b, c, d] = group;
            let packet = [&ip[..], &ipv6(0), &group, &icmp, &ipv6(target)].concat();
            (packet, [0x33, 0x33, a, b, c, d])
        };
        match *self {
            Self::Arp {
                is_request,
                sender,
                target,
            } => {
                let head = [8, 6, 0, 1, 8, 0, 6, 4, 0, if is_request { 1 } else { 2 }];
                let sides = [&mac(sender)[..], &ipv4(sender), &[0; 6], &ipv4(target)];
                ([&head[..], &sides.concat()].concat(), BROADCAST)
            }
            Self::Solicitation { target } => {
                let group = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, target];
                discovery(135, group, target)
            }
            Self::Advertisement { target } => {
                let group = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
                discovery(136, group, target)
            }
            Self::Dhcp(client) => {
                let ip = [8, 0, 0x45, 0, 0, 90, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1];
                let udp = [0, 67, 0, 68, 0, 70, 0, 0];
                let reply = [&[2, 1, 6, 0][..], &[0; 24], &mac(client), &[0; 28]].concat();
                ([&ip[..], &[0xff; 4], &udp, &reply].concat(), BROADCAST)
            }
            Self::Packet(packet) => (packet.bytes(), BROADCAST),
        }
    }
}

/// A frame as it leaves.
#[derive(Clone, Debug)]
pub struct Sent {
    pub vid: u16,
    pub source: u8,
    /// A station, or the group that the message is sent to.
    to: Option<u8>,
    pub message: Message,
    /// In its tag: for VID 0, whether there is one.
    priority: u16,
    /// The tag is in metadata.
    is_stripped: bool,
    /// It ends early.
    end: Option<usize>,
}

impl Sent {
    pub fn destination(&self) -> [u8; 6] {
        self.to.map_or_else(|| self.message.bytes().1, mac)
    }

    pub const fn is_for_a_group(&self) -> bool {
        self.to.is_none()
    }

    fn tag(&self) -> Option<Tag> {
        let tci = self.priority << 13 | self.vid;
        (tci != 0).then_some(Tag {
            tpid: Tag::C_TAG,
            tci,
        })
    }

    pub fn bytes(&self) -> Vec<u8> {
        let tag = self.tag().filter(|_| !self.is_stripped);
        let tag = tag.map(|tag| [tag.tpid.to_be_bytes(), tag.tci.to_be_bytes()].concat());
        let message = self.message.bytes().0;
        let parts = [
            &self.destination()[..],
            &mac(self.source),
            &tag.unwrap_or_default(),
            &message,
        ];
        let mut bytes = parts.concat();
        bytes.truncate(self.end.unwrap_or(usize::MAX));
        bytes
    }

    /// The same but for one thing, by a number; beyond those, another.
    pub fn but_for(mut self, thing: u8, other: Self) -> Self {
        match thing {
            0 => {}
            1 => self.source = other.source,
            2 => self.vid = other.vid,
            3 => self.to = other.to,
            4 => {
                if let (Message::Packet(own), Message::Packet(other)) =
                    (&mut self.message, other.message)
                {
                    (own.hops, own.rest, own.length) = (other.hops, other.rest, other.length);
                }
            }
            5 => self.message = other.message,
            _ => return other,
        }
        self
    }

    /// As it leaves the device of its VLAN.
    pub fn untagged(&self) -> Vec<u8> {
        let untagged = Self {
            vid: 0,
            priority: 0,
            ..self.clone()
        };
        untagged.bytes()
    }

    pub fn frame<'a>(&self, bytes: &'a [u8]) -> Bytes<'a> {
        Bytes {
            stripped_tag: self.tag().filter(|_| self.is_stripped),
            ..Bytes::new(bytes)
        }
    }

    /// From the network header on.
    pub fn packet_length(&self) -> usize {
        let is_in_bytes = self.tag().is_some() && !self.is_stripped;
        self.bytes().len() - 14 - if is_in_bytes { Tag::LEN } else { 0 }
    }
}

pub fn frames() -> impl Strategy<Value = Sent> {
    let address = || 0..=LINK_LOCAL;
    let arp = (prop::bool::weighted(0.7), address(), address());
    let rest = prop_oneof![
        8 => prop::sample::select(&[6, 17][..]).prop_map(Rest::Plain),
        1 => Just(Rest::Fragment),
        1 => Just(Rest::Options),
    ];
    let hops = prop_oneof![1 => 0..3u8, 3 => Just(64)];
    let version = prop_oneof![Just(4u16), Just(6)];
    let packet = (version, address(), address(), hops, rest, 28..100u8);
    let packet = packet.prop_map(|(version, from, to, hops, rest, length)| Packet {
        version,
        from,
        to,
        hops,
        rest,
        length,
    });
    let message = prop_oneof![
        4 => arp.prop_map(|(is_request, sender, target)| Message::Arp {
            is_request,
            sender,
            target,
        }),
        2 => address().prop_map(|target| Message::Solicitation { target }),
        2 => address().prop_map(|target| Message::Advertisement { target }),
        1 => (0..STATIONS).prop_map(Message::Dhcp),
        8 => packet.prop_map(Message::Packet),
    ];
    let to = (0..STATIONS, 0..6u8);
    let priority = prop_oneof![Just(0), 1..8u16];
    let end = prop::option::weighted(0.1, 14..90usize);
    let rest = (prop::bool::weighted(0.8), priority, any::<bool>(), end);
    (vlan(), 0..STATIONS, to, message, rest).prop_map(
        |(vid, source, (station, choice), mut message, (is_honest, priority, is_stripped, end))| {
            let is_packet = matches!(message, Message::Packet(_));
            let to = match choice {
                0 => Some(station),
                1..3 if is_packet => Some(station),
                3.. if is_packet => Some(ROUTER),
                _ => None,
            };
            // Most send by the address that they have, of which the first has two.
            if let (true, Message::Packet(packet)) = (is_honest, &mut message) {
                let is_local = source == 0 && packet.from.is_multiple_of(2);
                packet.from = if is_local { LINK_LOCAL } else { source };
            }
            Sent {
                vid,
                source,
                to,
                message,
                priority,
                is_stripped,
                end,
            }
        },
    )
}

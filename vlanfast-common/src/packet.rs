//! A packet of a flow, as it is known again when a router sends it back: the same, one hop on.

use core::net::IpAddr;

use crate::{Frame, Headers, Mac, NeighborKey, Network, Vid, Wire, longest, wire};

/// The key of the hash `FLOWS`: packets one way between two ends. 40 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowKey {
    /// In the order of the wire; an IPv4 address takes the first four bytes, and the rest is 0.
    pub source: [u8; 16],
    pub destination: [u8; 16],
    /// Source and destination of TCP and UDP; the type and the identifier of an ICMP echo.
    pub ports: [u16; 2],
    /// The VLAN that the source is on.
    pub vid: u16,
    /// The IANA number of the protocol above IP.
    pub protocol: u8,
    /// 4 or 6.
    pub version: u8,
}

const _: () = assert!(size_of::<FlowKey>() == 40);

impl FlowKey {
    /// The source, wherever it is.
    #[inline(always)]
    pub const fn sender(&self) -> NeighborKey {
        self.end(self.source)
    }

    /// The destination, wherever it is.
    #[inline(always)]
    pub const fn receiver(&self) -> NeighborKey {
        self.end(self.destination)
    }

    /// That of what the receiver sends back from another VLAN.
    #[inline(always)]
    pub const fn back(&self, vid: u16) -> Self {
        let [from, to] = self.ports;
        Self {
            source: self.destination,
            destination: self.source,
            ports: [to, from],
            vid,
            ..*self
        }
    }

    /// The same as an address.
    pub fn source(&self) -> IpAddr {
        self.sender().address()
    }

    pub fn destination(&self) -> IpAddr {
        self.receiver().address()
    }

    #[inline(always)]
    const fn end(&self, address: [u8; 16]) -> NeighborKey {
        let key = NeighborKey {
            address,
            vid: 0,
            version: self.version as u16,
        };
        key.anywhere()
    }
}

/// What there is to know of a packet, whichever way it goes. 88 bytes: it is handed from one BPF function to
/// the next in a map.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packet {
    /// Its VLAN is the frame's.
    pub key: FlowKey,
    pub wire: Wire,
    pub destination: Mac,
    pub source: Mac,
    /// The first sequence number of TCP (host byte order); of others four bytes that differ from packet to
    /// packet.
    pub start: u32,
    /// The sequence number behind its last byte; of others `start` and their length.
    pub end: u32,
    /// What TCP acknowledges, which who puts himself between the ends has to change; of others 0.
    pub acknowledged: u32,
    /// From the network header on; of a buffer, that of its longest packet.
    pub length: u32,
    /// IPv4's.
    pub identification: u16,
    pub hops: u8,
    flags: u8,
}

const _: () = assert!(size_of::<Packet>() == 88);

const TCP: u8 = 1;
const TURNS: u8 = 1 << 1;
const SEGMENTED: u8 = 1 << 2;

/// RFC 9293 clause 3.1.
const FIN_SYN_RST: u8 = 7;

impl Packet {
    /// Reads one of TCP, of UDP or an echo; `None` for all that is left to the router.
    #[inline(always)]
    pub fn read(frame: &impl Frame, headers: &Headers, vid: Vid) -> Option<Self> {
        let network = Network::read(frame, headers, vid)?;
        let transport = Transport::read(
            frame.whole(),
            headers.network + network.header,
            network.protocol,
            network.payload,
        )?;
        let segmented = match frame.segments() {
            Some(_) => SEGMENTED,
            None => 0,
        };
        Some(Self {
            key: FlowKey {
                source: network.sender.address,
                destination: network.receiver.address,
                ports: transport.ports,
                vid: vid.get(),
                protocol: network.protocol,
                version: network.sender.version as u8,
            },
            wire: wire(frame.whole(), headers),
            destination: frame.read(0).map(Mac)?,
            source: frame.read(6).map(Mac)?,
            start: transport.start,
            end: transport.end,
            acknowledged: transport.acknowledged,
            length: longest(frame, headers)? as u32,
            identification: network.identification,
            hops: network.hops,
            flags: transport.flags | segmented,
        })
    }

    /// It begins or ends a connection, which is the router's to see.
    #[inline(always)]
    pub const fn is_syn_fin_rst(&self) -> bool {
        self.flags & TURNS != 0
    }

    /// It has sequence numbers.
    #[inline(always)]
    pub const fn is_tcp(&self) -> bool {
        self.flags & TCP != 0
    }

    /// A buffer of several packets.
    #[inline(always)]
    pub const fn is_segmented(&self) -> bool {
        self.flags & SEGMENTED != 0
    }
}

/// What is above the network header.
struct Transport {
    ports: [u16; 2],
    start: u32,
    end: u32,
    acknowledged: u32,
    flags: u8,
}

impl Transport {
    #[inline(always)]
    fn read(frame: &impl Frame, at: usize, protocol: u8, length: usize) -> Option<Self> {
        let head: [u8; 8] = frame.read(at)?;
        let number = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
        let word = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
        let ports = [number(0), number(2)];
        match protocol {
            6 => {
                let [a, b, c, d, offset, flags] = frame.read(at + 8)?;
                // What is too large to say has no end that could be known.
                let payload = length.checked_sub((offset >> 4) as usize * 4)?;
                let turns = match flags & FIN_SYN_RST {
                    0 => 0,
                    _ => TURNS,
                };
                Some(Self {
                    ports,
                    start: word,
                    end: word.wrapping_add(payload as u32),
                    acknowledged: u32::from_be_bytes([a, b, c, d]),
                    flags: TCP | turns,
                })
            }
            17 => {
                // The checksum differs along the way, where a NIC computes it.
                let start = match length {
                    ..12 => 0,
                    _ => u32::from_be_bytes(frame.read(at + 8)?),
                };
                Some(Self::datagram(ports, start, length))
            }
            // Echo and its reply: RFC 792, RFC 4443 clause 4.
            1 if matches!(head[..2], [8 | 0, 0]) => {
                Some(Self::datagram([number(0), number(4)], word, length))
            }
            58 if matches!(head[..2], [128 | 129, 0]) => {
                Some(Self::datagram([number(0), number(4)], word, length))
            }
            _ => None,
        }
    }

    #[inline(always)]
    const fn datagram(ports: [u16; 2], start: u32, length: usize) -> Self {
        Self {
            ports,
            start,
            end: start.wrapping_add(length as u32),
            acknowledged: 0,
            flags: 0,
        }
    }
}

#[cfg(feature = "user")]
mod pod {
    use super::FlowKey;

    // SAFETY: `repr(C)`, integers alone, and the size above leaves no room for padding.
    unsafe impl aya::Pod for FlowKey {}
}

//! What `--shortcut learned` compares of a packet, to know it again when the router has forwarded it.

use crate::{
    abi::{FlowKey, Mac, Vid, Wire},
    frame::Frame,
    layer2::Headers,
    parse::{Network, Transport, longest, wire},
};

/// A packet of TCP, UDP or an ICMP echo. 88 bytes.
///
/// One BPF function reads it, and another decides: each needs a stack of its own.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packet {
    /// The flow that it belongs to; the VLAN is the frame's.
    pub key: FlowKey,
    pub wire: Wire,
    pub destination: Mac,
    pub source: Mac,
    /// The first sequence number of TCP in host byte order; of other protocols four bytes that differ from packet to
    /// packet.
    pub start: u32,
    /// The sequence number behind the last byte of TCP; of other protocols `start` plus the packet's length.
    pub end: u32,
    /// What TCP acknowledges, which a proxy between the endpoints would have to change; of other protocols 0.
    pub acknowledged: u32,
    /// Bytes from the network header on; of a buffer of several packets, those of the longest.
    pub length: u32,
    /// IPv4's identification.
    pub identification: u16,
    /// TTL or hop limit.
    pub hops: u8,
    flags: u8,
}

const _: () = assert!(size_of::<Packet>() == 88);

/// A flag beside those of [`Transport`]: the buffer stands for several packets.
const SEGMENTED: u8 = 1 << 2;

impl Packet {
    /// Reads a packet of TCP, UDP or an ICMP echo; `None` for all other packets, which are the router's.
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

    /// Whether the packet begins or ends a connection, which the router has to see.
    #[inline(always)]
    pub const fn is_syn_fin_rst(&self) -> bool {
        self.flags & Transport::SYN_FIN_RST != 0
    }

    /// Whether the packet has sequence numbers.
    #[inline(always)]
    pub const fn is_tcp(&self) -> bool {
        self.flags & Transport::TCP != 0
    }

    /// Whether the buffer stands for several packets.
    #[inline(always)]
    pub const fn is_segmented(&self) -> bool {
        self.flags & SEGMENTED != 0
    }
}

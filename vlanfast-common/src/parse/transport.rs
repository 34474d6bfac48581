//! TCP, UDP and ICMP echo: what tells the packets of a flow apart.

use core::mem::offset_of;

use network_types::{icmp::Icmpv4Hdr, tcp::TcpHdr, udp::UdpHdr};

use crate::{
    frame::Frame,
    headers::{IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP, field},
};

/// FIN, SYN and RST among the flags of TCP (RFC 9293 clause 3.1).
const TCP_SYN_FIN_RST: u8 = 7;

/// Echo reply and echo request (RFC 792, RFC 4443 clause 4).
const ICMP_ECHOREPLY: u8 = 0;
const ICMP_ECHO: u8 = 8;
const ICMPV6_ECHO_REQUEST: u8 = 128;
const ICMPV6_ECHO_REPLY: u8 = 129;

/// What is above the network header.
pub struct Transport {
    /// Source and destination port; type and identifier of an echo.
    pub ports: [u16; 2],
    /// TCP's sequence number; of other protocols four bytes that differ from packet to packet.
    pub start: u32,
    /// The sequence number behind the last byte; of other protocols `start` plus the packet's length.
    pub end: u32,
    /// TCP's acknowledgement number; of other protocols 0.
    pub acknowledged: u32,
    /// [`TCP`](Self::TCP) and [`SYN_FIN_RST`](Self::SYN_FIN_RST).
    pub flags: u8,
}

impl Transport {
    pub const TCP: u8 = 1;
    /// TCP begins or ends a connection.
    pub const SYN_FIN_RST: u8 = 1 << 1;

    /// Reads the header of a protocol at an offset, of a packet with so many bytes behind its network header.
    #[inline(always)]
    pub fn read(frame: &impl Frame, at: usize, protocol: u8, length: usize) -> Option<Self> {
        /// A TCP header up to its acknowledgement number, a UDP header, or ICMP's up to its data.
        const START: usize = offset_of!(TcpHdr, ack_seq);
        let start: [u8; START] = frame.read(at)?;
        let source = u16::from_be_bytes(field!(start, TcpHdr.source));
        let destination = u16::from_be_bytes(field!(start, TcpHdr.dest));
        let word = u32::from_be_bytes(field!(start, TcpHdr.seq));
        match protocol {
            IPPROTO_TCP => {
                let [a, b, c, d, doff, flags] = frame.read(at + offset_of!(TcpHdr, ack_seq))?;
                // Where the length is more than its field can say, the end of the packet is not known.
                let payload = length.checked_sub((doff >> 4) as usize * 4)?;
                let syn_fin_rst = match flags & TCP_SYN_FIN_RST {
                    0 => 0,
                    _ => Self::SYN_FIN_RST,
                };
                Some(Self {
                    ports: [source, destination],
                    start: word,
                    end: word.wrapping_add(payload as u32),
                    acknowledged: u32::from_be_bytes([a, b, c, d]),
                    flags: Self::TCP | syn_fin_rst,
                })
            }
            IPPROTO_UDP => {
                const WITH_WORD: usize = UdpHdr::LEN + size_of::<u32>();
                // The first word of the payload. The checksum differs along the way where a NIC computes it.
                let first = match length {
                    ..WITH_WORD => 0,
                    _ => u32::from_be_bytes(frame.read(at + UdpHdr::LEN)?),
                };
                Some(Self::datagram([source, destination], first, length))
            }
            IPPROTO_ICMP if matches!(start[..2], [ICMP_ECHO | ICMP_ECHOREPLY, 0]) => {
                let identifier = u16::from_be_bytes(field!(start, Icmpv4Hdr.data));
                Some(Self::datagram([source, identifier], word, length))
            }
            IPPROTO_ICMPV6
                if matches!(start[..2], [ICMPV6_ECHO_REQUEST | ICMPV6_ECHO_REPLY, 0]) =>
            {
                let identifier = u16::from_be_bytes(field!(start, Icmpv4Hdr.data));
                Some(Self::datagram([source, identifier], word, length))
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

//! How much a buffer is on the wire. GRO merges what came in, and GSO splits what goes out only
//! behind our hook, so one buffer can stand for 40 packets and more.

use crate::{Frame, Headers, Protocol, Segments, Tag};

/// Packets and bytes on the wire.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wire {
    pub packets: u64,
    /// From the destination MAC on, tags included, FCS not, for all packets together.
    pub bytes: u64,
}

const IPV6_HEADER: usize = 40;
/// More extension headers than this in front of TCP or UDP: not counted exactly.
const MAX_EXTENSIONS: usize = 4;

/// Counts a frame as the wire carries it.
#[inline(always)]
pub fn wire(frame: &impl Frame, headers: &Headers) -> Wire {
    let tag = match frame.stripped_tag() {
        Some(_) => Tag::LEN,
        None => 0,
    };
    let len = frame.len() + tag;
    match frame.segments() {
        None => Wire {
            packets: 1,
            bytes: len as u64,
        },
        Some(segments) => segmented(frame, headers, segments, len, tag),
    }
}

/// Every segment carries the headers of the first one, and all but the last `size` bytes of payload.
#[inline(always)]
fn segmented(
    frame: &impl Frame,
    headers: &Headers,
    segments: Segments,
    len: usize,
    tag: usize,
) -> Wire {
    let Some(repeated) = repeated(frame, headers) else {
        // A protocol we can't read (ESP, a tunnel, SCTP): the packets are the kernel's count, and
        // the bytes fall short by the headers above layer 2.
        let packets = segments.count.max(1) as u64;
        return Wire {
            packets,
            bytes: len as u64 + (packets - 1) * (headers.network + tag) as u64,
        };
    };
    let payload = frame.len().saturating_sub(repeated.end) as u64;
    // Not `gso_segs`: it is 0 for frames that a virtual machine segmented (SKB_GSO_DODGY).
    let packets = match segments.size {
        0 => segments.count as u64,
        size => payload.div_ceil(size as u64),
    }
    .max(1);
    let header = (repeated.end - repeated.not_sent + tag) as u64;
    Wire {
        packets,
        bytes: payload + packets * header,
    }
}

/// The headers that every segment repeats.
pub struct Repeated {
    /// Where the payload starts.
    pub end: usize,
    /// Bytes of headers in memory that the wire never carries.
    not_sent: usize,
}

/// Measures the headers up to the payload: IPv4 (RFC 791) or IPv6 (RFC 8200), TCP (RFC 9293) or UDP.
#[inline(always)]
pub fn repeated(frame: &impl Frame, headers: &Headers) -> Option<Repeated> {
    let network = headers.network;
    let (protocol, transport, not_sent) = match headers.protocol {
        Protocol::IPV4 => {
            let [version_ihl] = frame.read(network)?;
            let [protocol] = frame.read(network + 9)?;
            (protocol, network + (version_ihl & 0xf) as usize * 4, 0)
        }
        Protocol::IPV6 => ipv6_transport(frame, network)?,
        _ => return None,
    };
    let header = match protocol {
        6 => {
            let [offset] = frame.read(transport + 12)?;
            (offset >> 4) as usize * 4
        }
        17 => 8,
        _ => return None,
    };
    Some(Repeated {
        end: transport + header,
        not_sent,
    })
}

/// Walks IPv6 extension headers: the transport protocol, where it starts, and what is not sent.
#[inline(always)]
fn ipv6_transport(frame: &impl Frame, network: usize) -> Option<(u8, usize, usize)> {
    let payload_length = u16::from_be_bytes(frame.read(network + 4)?);
    let [mut next] = frame.read(network + 6)?;
    let mut offset = network + IPV6_HEADER;
    // BIG TCP (Linux 5.19): a jumbo payload option (RFC 2675) that lives in memory alone.
    let not_sent = if payload_length == 0 && next == 0 {
        8
    } else {
        0
    };
    for _ in 0..MAX_EXTENSIONS {
        match next {
            // Hop-by-hop options, routing, destination options.
            0 | 43 | 60 => {
                let [following, length] = frame.read(offset)?;
                next = following;
                offset += (length as usize + 1) * 8;
            }
            _ => return Some((next, offset, not_sent)),
        }
    }
    None
}

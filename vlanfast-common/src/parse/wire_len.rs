//! How much a buffer is on the wire. GRO has merged what came in, and GSO splits what goes out only behind our hook, so
//! one buffer can stand for 40 packets and more.

use crate::{
    abi::Wire,
    frame::{Frame, Repeated, Segments},
    layer2::{Headers, Tag},
};

/// The packets and bytes of a frame as the wire carries it.
#[inline(always)]
pub fn wire(frame: &impl Frame, headers: &Headers) -> Wire {
    let tag = match frame.stripped_tag() {
        Some(_) => Tag::LEN,
        None => 0,
    };
    match frame.segments() {
        None => Wire {
            packets: 1,
            bytes: (frame.len() + tag) as u64,
        },
        Some(segments) => {
            let repeated = frame.whole().repeated(headers);
            segmented(frame.len(), &repeated, segments, tag)
        }
    }
}

/// The packets and bytes of a buffer that GSO splits: every packet carries the headers of the first one, and all but the
/// last carry `size` bytes of payload.
#[inline(always)]
fn segmented(len: usize, repeated: &Repeated, segments: Segments, tag: usize) -> Wire {
    let end = repeated.end.min(len);
    let payload = (len - end) as u64;
    let packets = match segments.size {
        0 | Segments::BY_FRAGMENTS => segments.count as u64,
        // `gso_segs` is 0 for frames that a virtual machine segmented (SKB_GSO_DODGY), so the packets are computed.
        size if repeated.is_whole => payload.div_ceil(size as u64),
        // Headers behind ESP cannot be read. The packets are the kernel's count, and the bytes fall short by those headers.
        _ => segments.count as u64,
    }
    .max(1);
    let header = (end.saturating_sub(repeated.not_sent) + tag) as u64;
    Wire {
        packets,
        bytes: payload + packets * header,
    }
}

/// The length, from the network header on, of the longest packet that a buffer stands for; `None` where its headers
/// cannot be read.
#[inline(always)]
pub fn longest(frame: &impl Frame, headers: &Headers) -> Option<usize> {
    match frame.segments() {
        None => Some(frame.len().saturating_sub(headers.network)),
        Some(segments) => {
            let repeated = frame.whole().repeated(headers);
            let longest = repeated.end - headers.network + segments.size as usize;
            repeated.is_whole.then_some(longest)
        }
    }
}

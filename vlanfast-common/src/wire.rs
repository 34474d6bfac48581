//! How much a buffer is on the wire. GRO merges what came in, and GSO splits what goes out only
//! behind our hook, so one buffer can stand for 40 packets and more.

mod guess;
mod repeated;

pub use repeated::{Repeated, repeated};

use crate::{Frame, Headers, Segments, Tag};

/// Packets and bytes on the wire.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wire {
    pub packets: u64,
    /// From the destination MAC on, tags included, FCS not, for all packets together.
    pub bytes: u64,
}

/// Counts a frame as the wire carries it.
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

/// Every packet carries the headers of the first one, and all but the last `size` bytes of payload.
#[inline(always)]
fn segmented(len: usize, repeated: &Repeated, segments: Segments, tag: usize) -> Wire {
    let end = repeated.end.min(len);
    let payload = (len - end) as u64;
    let packets = match segments.size {
        0 | Segments::BY_FRAGMENTS => segments.count as u64,
        // Not `gso_segs`: it is 0 for frames that a virtual machine segmented (SKB_GSO_DODGY).
        size if repeated.is_whole => payload.div_ceil(size as u64),
        // What we can't read (ESP) has headers that we don't know: the packets are the kernel's count, and
        // the bytes fall short by those headers.
        _ => segments.count as u64,
    }
    .max(1);
    let header = (end.saturating_sub(repeated.not_sent) + tag) as u64;
    Wire {
        packets,
        bytes: payload + packets * header,
    }
}

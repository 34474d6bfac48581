//! A frame in ordinary memory: what tests, fuzzers and tools hand in.

use crate::{
    abi::Vid,
    frame::{Frame, Repeated, Segments},
    layer2::{Headers, Tag},
    message::Message,
    parse::repeated,
};

/// The bytes of a frame, and what the kernel would say of it in metadata.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bytes<'a> {
    pub bytes: &'a [u8],
    pub stripped_tag: Option<Tag>,
    pub segments: Option<Segments>,
}

impl<'a> Bytes<'a> {
    /// A single packet with all its bytes in place.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            stripped_tag: None,
            segments: None,
        }
    }
}

impl Frame for Bytes<'_> {
    type Whole = Self;

    fn whole(&self) -> &Self {
        self
    }

    fn len(&self) -> usize {
        self.bytes.len()
    }

    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.bytes.get(offset..)?.first_chunk().copied()
    }

    fn stripped_tag(&self) -> Option<Tag> {
        self.stripped_tag
    }

    fn segments(&self) -> Option<Segments> {
        self.segments
    }

    fn repeated(&self, headers: &Headers) -> Repeated {
        repeated(self, headers)
    }

    fn message(&self, headers: &Headers, vid: Vid) -> Message {
        Message::of(self, headers, vid)
    }
}

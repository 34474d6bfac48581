//! What a hook offers of a frame. The only thing, beside acting on a verdict, that differs by hook.

use crate::{Headers, Message, Repeated, Vid, repeated};

/// An Ethernet frame as a hook sees it: bytes from the destination MAC on, without FCS.
pub trait Frame {
    /// See [`Frame::whole`].
    type Whole: Frame;

    /// The frame for reads behind layer 2, whose offsets depend on what it holds. Another than this one
    /// where this one's reads of layer 2 are made without a check.
    fn whole(&self) -> &Self::Whole;

    /// The bytes in memory, in wire order. A tag that was stripped is not among them.
    fn len(&self) -> usize;

    /// `N` bytes at `offset`, or `None` where the frame ends before.
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;

    /// The outermost tag, where the NIC or the kernel took it out of the bytes (skb metadata).
    fn stripped_tag(&self) -> Option<Tag>;

    /// How many wire packets the buffer stands for, where GRO or GSO made it one of several.
    fn segments(&self) -> Option<Segments>;

    /// The headers that each packet of such a buffer repeats. A hook where that is too much for every
    /// place that asks has a function of its own for it.
    #[inline(always)]
    fn repeated(&self, headers: &Headers) -> Repeated
    where
        Self: Sized,
    {
        repeated(self, headers)
    }

    /// What it says of addresses. A hook whose stack has no room for reading it has a function of its own for it.
    #[inline(always)]
    fn message(&self, headers: &Headers, vid: Vid) -> Message
    where
        Self: Sized,
    {
        Message::of(self, headers, vid)
    }

    /// No bytes at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A VLAN tag, IEEE 802.1Q-2022 clause 9.3: TPID and TCI, both in host byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    pub tpid: u16,
    pub tci: u16,
}

impl Tag {
    /// Bytes that a tag takes on the wire.
    pub const LEN: usize = 4;
    /// TPID of a customer tag: 802.1Q.
    pub const C_TAG: u16 = 0x8100;
    /// TPID of a service tag: 802.1ad.
    pub const S_TAG: u16 = 0x88a8;

    /// Whether an EtherType announces a tag that Linux takes for one (`eth_type_vlan`).
    #[inline(always)]
    pub const fn is_tpid(ether_type: u16) -> bool {
        matches!(ether_type, Self::C_TAG | Self::S_TAG)
    }
}

/// A buffer of several wire packets, as the kernel's `skb_shared_info` describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segments {
    /// `gso_segs`; 0 where the kernel was not told (frames that came in through virtio or tun).
    pub count: u32,
    /// `gso_size`: payload bytes of each segment but the last.
    pub size: u32,
}

impl Segments {
    /// A `gso_size` that is none: each fragment of the buffer is a packet's payload, of any size (SCTP).
    pub const BY_FRAGMENTS: u32 = 0xffff;
}

/// A frame in ordinary memory: what tests, fuzzers and tools hand in.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bytes<'a> {
    pub bytes: &'a [u8],
    pub stripped_tag: Option<Tag>,
    pub segments: Option<Segments>,
}

impl<'a> Bytes<'a> {
    /// A frame with all its bytes in place.
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
}

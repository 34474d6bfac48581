//! What a hook offers of a frame. Hooks differ in this and in how they act on a verdict, and in nothing else.

use core::mem::offset_of;

use network_types::eth::EthHdr;

use crate::{
    abi::{Mac, Vid},
    layer2::{Headers, Tag},
    message::Message,
};

/// An Ethernet frame as a hook sees it: bytes from the destination MAC on, without FCS.
pub trait Frame {
    /// The type of [`Frame::whole`].
    type Whole: Frame;

    /// The frame for reads behind layer 2, at offsets that depend on what it holds. It differs from this one where this
    /// one reads layer 2 without checking bounds.
    fn whole(&self) -> &Self::Whole;

    /// The number of bytes in memory. A tag that was stripped is not among them.
    fn len(&self) -> usize;

    /// `N` bytes at `offset`, or `None` where the frame ends before.
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;

    /// The destination MAC.
    #[inline(always)]
    fn destination(&self) -> Option<Mac> {
        self.read(offset_of!(EthHdr, dst_addr)).map(Mac)
    }

    /// The source MAC.
    #[inline(always)]
    fn source(&self) -> Option<Mac> {
        self.read(offset_of!(EthHdr, src_addr)).map(Mac)
    }

    /// The outermost tag, where the NIC or the kernel took it out of the bytes (skb metadata).
    fn stripped_tag(&self) -> Option<Tag>;

    /// How many wire packets the buffer stands for, where GRO or GSO made it one of several.
    fn segments(&self) -> Option<Segments>;

    /// The headers that each packet of such a buffer repeats: [`repeated`](crate::repeated()), which TC runs in a BPF
    /// function of its own, because it is too much for every place that asks.
    fn repeated(&self, headers: &Headers) -> Repeated;

    /// What the frame says of addresses: [`Message::of`], which the hooks run in a BPF function of its own, because
    /// their stacks have no room for it.
    fn message(&self, headers: &Headers, vid: Vid) -> Message;

    /// Whether there are no bytes at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
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
    /// A `gso_size` that is no size (`GSO_BY_FRAGS`): each fragment of the buffer is a packet's payload (SCTP).
    pub const BY_FRAGMENTS: u32 = 0xffff;
}

/// The headers that every packet of a buffer repeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repeated {
    /// The offset at which they end.
    pub end: usize,
    /// How many of these bytes are in memory alone, and never on the wire.
    pub not_sent: usize,
    /// Whether the payload starts at `end`; otherwise a header that could not be read does.
    pub is_whole: bool,
}

impl Repeated {
    /// Packs them into one number, as a BPF function returns them.
    #[inline(always)]
    pub const fn to_bits(self) -> u64 {
        (self.is_whole as u64) << 48 | (self.not_sent as u64) << 32 | self.end as u64
    }

    /// Unpacks what [`to_bits`](Self::to_bits) made.
    #[inline(always)]
    pub const fn from_bits(bits: u64) -> Self {
        Self {
            end: bits as u32 as usize,
            not_sent: (bits >> 32) as u16 as usize,
            is_whole: bits >> 48 != 0,
        }
    }
}

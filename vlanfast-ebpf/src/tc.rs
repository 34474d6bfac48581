//! What TC offers of a frame, and how it carries out a verdict.

use aya_ebpf::{bindings::TC_ACT_UNSPEC, programs::TcContext};
use vlanfast_common::{Frame, Segments, Tag, Verdict};

/// Up to here headers are read straight from the packet: always linear, always at fixed offsets.
const DIRECT: usize = 22;

pub struct SkbFrame<'a> {
    ctx: &'a TcContext,
    data: usize,
    end: usize,
}

impl<'a> SkbFrame<'a> {
    #[inline(always)]
    pub fn new(ctx: &'a TcContext) -> Self {
        Self {
            ctx,
            data: ctx.data(),
            end: ctx.data_end(),
        }
    }
}

impl Frame for SkbFrame<'_> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.ctx.len() as usize
    }

    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        if offset + N <= DIRECT && self.data + offset + N <= self.end {
            // SAFETY: the bounds were checked in the line above, in the form the verifier knows.
            return Some(unsafe { *((self.data + offset) as *const [u8; N]) });
        }
        // Behind the linear part, or at an offset that depends on the packet.
        self.ctx.load(offset).ok()
    }

    /// The kernel moves an outer tag into metadata before TC ingress; on egress it is there until
    /// the driver puts it into the bytes.
    #[inline(always)]
    fn stripped_tag(&self) -> Option<Tag> {
        // SAFETY: the context is the kernel's for as long as the program runs.
        let skb = unsafe { &*self.ctx.skb.skb };
        (skb.vlan_present != 0).then(|| Tag {
            tpid: u16::from_be(skb.vlan_proto as u16),
            tci: skb.vlan_tci as u16,
        })
    }

    #[inline(always)]
    fn segments(&self) -> Option<Segments> {
        // SAFETY: as above.
        let skb = unsafe { &*self.ctx.skb.skb };
        (skb.gso_size != 0).then_some(Segments {
            count: skb.gso_segs,
            size: skb.gso_size,
        })
    }
}

/// `TC_ACT_UNSPEC`: whatever else is attached to the hook has its turn, then the kernel's own path.
#[inline(always)]
pub fn act(verdict: Verdict) -> i32 {
    match verdict {
        Verdict::Pass => TC_ACT_UNSPEC,
    }
}

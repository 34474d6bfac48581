//! What TC offers of a frame, and how it carries out a verdict.

use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC},
    helpers::bpf_skb_load_bytes,
    programs::TcContext,
};
use vlanfast_common::{Frame, Segments, Tag, Verdict};

use crate::{
    Hook,
    head::{self, Head},
};

pub struct SkbFrame<'a> {
    ctx: &'a TcContext,
    tag: Option<Tag>,
}

impl<'a> SkbFrame<'a> {
    #[inline(always)]
    pub fn new(ctx: &'a TcContext) -> Self {
        // SAFETY: the context is the kernel's for as long as the program runs.
        let skb = unsafe { &*ctx.skb.skb };
        let tag = (skb.vlan_present != 0).then(|| Tag {
            tpid: u16::from_be(skb.vlan_proto as u16),
            tci: skb.vlan_tci as u16,
        });
        Self { ctx, tag }
    }

    /// What is in the skb's linear part.
    #[inline(always)]
    pub fn head(&self) -> Option<Head<'_, Self>> {
        Head::of(self, self.ctx.data(), self.ctx.data_end())
    }
}

impl Frame for SkbFrame<'_> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.ctx.len() as usize
    }

    /// By a helper: behind the linear part, or at an offset that depends on the packet.
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let skb = self.ctx.skb.skb.cast();
        // SAFETY: the context is the kernel's, and the buffer has the length.
        head::filled(|to, length| unsafe { bpf_skb_load_bytes(skb, offset as u32, to, length) })
    }

    /// The kernel moves an outer tag into metadata before TC ingress; on egress it is there until
    /// the driver puts it into the bytes.
    #[inline(always)]
    fn stripped_tag(&self) -> Option<Tag> {
        self.tag
    }

    #[inline(always)]
    fn segments(&self) -> Option<Segments> {
        // SAFETY: the context is the kernel's for as long as the program runs.
        let skb = unsafe { &*self.ctx.skb.skb };
        (skb.gso_size != 0).then_some(Segments {
            count: skb.gso_segs,
            size: skb.gso_size,
        })
    }
}

impl Hook for TcContext {
    type Action = i32;

    /// Passing is `TC_ACT_UNSPEC`: whatever else is attached to the hook has its turn, then the kernel's own
    /// path.
    #[inline(always)]
    fn act(&self, verdict: Verdict) -> i32 {
        match verdict {
            Verdict::Pass | Verdict::Disputed => TC_ACT_UNSPEC,
            Verdict::Steer { mac } => {
                // One that can't be written stays a broadcast, and reaches its taker as such.
                if self.store(0, &mac.0, 0).is_ok() {
                    // What it would be if it had come with that MAC.
                    let _ = self.change_type(PACKET_HOST);
                }
                TC_ACT_UNSPEC
            }
            Verdict::Drop(_) => TC_ACT_SHOT,
        }
    }
}

/// `include/uapi/linux/if_packet.h`.
const PACKET_HOST: u32 = 0;

//! What XDP offers of a frame, and how it carries out a verdict.

use aya_ebpf::{
    bindings::{xdp_action, xdp_md},
    helpers::{bpf_xdp_load_bytes, bpf_xdp_store_bytes},
    programs::XdpContext,
};
use vlanfast_common::{
    Frame, Headers, Mac, Message, Repeated, Segments, Tag, Verdict, Vid, repeated,
};

use crate::{
    Hook,
    head::{self, LinearFrame},
};

pub struct XdpFrame<'a> {
    ctx: &'a XdpContext,
    data: usize,
    end: usize,
}

impl<'a> XdpFrame<'a> {
    #[inline(always)]
    pub fn new(ctx: &'a XdpContext) -> Self {
        Self {
            ctx,
            data: ctx.data(),
            end: ctx.data_end(),
        }
    }

    /// What is checked at once.
    #[inline(always)]
    pub fn head(&self) -> Option<LinearFrame<'_, Self>> {
        LinearFrame::of(self, self.data, self.end)
    }
}

impl Frame for XdpFrame<'_> {
    type Whole = Self;

    #[inline(always)]
    fn whole(&self) -> &Self {
        self
    }

    #[inline(always)]
    fn len(&self) -> usize {
        self.end - self.data
    }

    /// By a helper (Linux 5.18): what is behind the head is at an offset that depends on the frame, and
    /// LLVM does not keep to the form in which the verifier follows such a bound.
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let ctx = self.ctx.ctx;
        // SAFETY: the context is the kernel's, and the buffer has the length.
        head::filled(|to, length| unsafe { bpf_xdp_load_bytes(ctx, offset as u32, to, length) })
    }

    /// XDP sees no metadata: the loader takes this hook only where tags stay in the bytes.
    #[inline(always)]
    fn stripped_tag(&self) -> Option<Tag> {
        None
    }

    /// GRO comes after XDP.
    #[inline(always)]
    fn segments(&self) -> Option<Segments> {
        None
    }

    #[inline(always)]
    fn repeated(&self, headers: &Headers) -> Repeated {
        repeated(self, headers)
    }

    #[inline(always)]
    fn message(&self, headers: &Headers, vid: Vid) -> Message {
        let mut message = Message::default();
        message_xdp(self.ctx.ctx, headers.to_bits(), vid.get(), &mut message);
        message
    }
}

/// On a stack of its own, because what is decided by it needs one as well.
#[inline(never)]
fn message_xdp(ctx: *mut xdp_md, headers: u64, vid: u16, message: &mut Message) {
    let ctx = XdpContext::new(ctx);
    let frame = XdpFrame::new(&ctx);
    message.read(&frame, &Headers::from_bits(headers), Vid::new(vid));
}

impl Hook for XdpContext {
    type Action = u32;

    #[inline(always)]
    fn act(&self, _frame: &impl Frame, _headers: &Headers, verdict: Verdict) -> u32 {
        match verdict {
            Verdict::Pass | Verdict::Conflict | Verdict::Hairpin => xdp_action::XDP_PASS,
            // Of egress, or of TC.
            Verdict::Reflect { .. }
            | Verdict::CloneToLocal { .. }
            | Verdict::Shortcut { .. }
            | Verdict::ShortcutAndProbe { .. }
            | Verdict::Deliver { .. } => xdp_action::XDP_PASS,
            Verdict::Steer { mac: Mac(mut mac) } => {
                let from = mac.as_mut_ptr().cast();
                // SAFETY: as in `read`. A frame that can't be written stays a broadcast.
                unsafe { bpf_xdp_store_bytes(self.ctx, 0, from, mac.len() as u32) };
                xdp_action::XDP_PASS
            }
            Verdict::Drop(_) => xdp_action::XDP_DROP,
        }
    }
}

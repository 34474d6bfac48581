//! What XDP offers of a frame, and how it carries out a verdict.

use aya_ebpf::{bindings::xdp_action, programs::XdpContext};
use vlanfast_common::{Frame, Segments, Tag, Verdict};

use crate::head::{self, Head};

pub struct XdpFrame {
    data: usize,
    end: usize,
}

impl XdpFrame {
    #[inline(always)]
    pub fn new(ctx: &XdpContext) -> Self {
        Self {
            data: ctx.data(),
            end: ctx.data_end(),
        }
    }

    /// What is checked at once.
    #[inline(always)]
    pub fn head(&self) -> Option<Head<'_, Self>> {
        Head::of(self, self.data, self.end)
    }
}

impl Frame for XdpFrame {
    #[inline(always)]
    fn len(&self) -> usize {
        self.end - self.data
    }

    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        if self.data + offset + N > self.end {
            return None;
        }
        // SAFETY: the bounds were checked in the line above, in the form that the verifier knows.
        Some(unsafe { head::load(self.data + offset, false) })
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
}

#[inline(always)]
pub fn act(verdict: Verdict) -> u32 {
    match verdict {
        Verdict::Pass => xdp_action::XDP_PASS,
    }
}

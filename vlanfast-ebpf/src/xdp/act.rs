//! Carries out a verdict in XDP.

use aya_ebpf::{bindings::xdp_action, helpers::bpf_xdp_store_bytes, programs::XdpContext};
use vlanfast_common::{Frame, Headers, Mac, Verdict};

use crate::pipeline::Act;

impl Act for XdpContext {
    type Action = u32;

    #[inline(always)]
    fn act(&self, _frame: &impl Frame, _headers: &Headers, verdict: Verdict) -> u32 {
        match verdict {
            Verdict::Pass | Verdict::Conflict | Verdict::Hairpin => xdp_action::XDP_PASS,
            // These are verdicts over frames that leave, or that need an skb.
            Verdict::Reflect { .. }
            | Verdict::CloneToLocal { .. }
            | Verdict::Shortcut { .. }
            | Verdict::ShortcutAndProbe { .. }
            | Verdict::Deliver { .. } => xdp_action::XDP_PASS,
            Verdict::Steer { mac: Mac(mut mac) } => {
                let from = mac.as_mut_ptr().cast();
                // A frame that can't be written stays a broadcast, and reaches its receiver as one.
                // SAFETY: the context is the kernel's, and the helper reads no more than the MAC.
                unsafe { bpf_xdp_store_bytes(self.ctx, 0, from, mac.len() as u32) };
                xdp_action::XDP_PASS
            }
            Verdict::Drop(_) => xdp_action::XDP_DROP,
        }
    }
}

//! The programs on the trunk. A packet's way: hook → [`Frame`] → `parse` → `classify` → `act`,
//! and counting at the one exit. All decisions are in `vlanfast-common`.
#![no_std]
#![no_main]

mod count;
mod head;
mod maps;
mod report;
mod tables;
mod tc;
mod xdp;

use aya_ebpf::{
    EbpfContext,
    bindings::{__sk_buff, xdp_md},
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use head::Head;
use tables::Maps;
use vlanfast_common::{Direction, Frame, HEAD, Headers, Verdict, classify, is_plain, parse, wire};

/// Ingress, before the kernel has made an skb of the frame.
#[xdp]
pub fn vlanfast_xdp(ctx: XdpContext) -> u32 {
    let frame = xdp::XdpFrame::new(&ctx);
    let headers = headers(&frame, frame.head());
    match is_plain(&headers, Direction::Rx, &Maps) {
        true => finish(&ctx, &frame, &headers, Direction::Rx, Verdict::Pass),
        false => consider_xdp(ctx.ctx, headers.to_bits()),
    }
}

/// Ingress, where XDP is not to be had.
#[classifier]
pub fn vlanfast_rx(ctx: TcContext) -> i32 {
    let frame = tc::SkbFrame::new(&ctx);
    let headers = headers(&frame, frame.head());
    match is_plain(&headers, Direction::Rx, &Maps) {
        true => finish(&ctx, &frame, &headers, Direction::Rx, Verdict::Pass),
        false => consider_rx(ctx.skb.skb, headers.to_bits()),
    }
}

/// Egress.
#[classifier]
pub fn vlanfast_tx(ctx: TcContext) -> i32 {
    let frame = tc::SkbFrame::new(&ctx);
    let headers = headers(&frame, frame.head());
    finish(&ctx, &frame, &headers, Direction::Tx, Verdict::Pass)
}

// What is not plain is a BPF function of its own, so that whatever it needs of registers and stack is
// nothing to those frames that are. It takes a number, because the verifier does not follow structures.

#[inline(never)]
fn consider_xdp(ctx: *mut xdp_md, headers: u64) -> u32 {
    let ctx = XdpContext::new(ctx);
    let headers = Headers::from_bits(headers);
    let frame = xdp::XdpFrame::new(&ctx);
    let verdict = consider(frame.head(), &headers);
    finish(&ctx, &frame, &headers, Direction::Rx, verdict)
}

#[inline(never)]
fn consider_rx(skb: *mut __sk_buff, headers: u64) -> i32 {
    let ctx = TcContext::new(skb);
    let headers = Headers::from_bits(headers);
    if tc::SkbFrame::new(&ctx).head().is_none() {
        // Some drivers leave no more than the addresses in one piece with the skb.
        let _ = ctx.pull_data(HEAD as u32);
    }
    let frame = tc::SkbFrame::new(&ctx);
    let verdict = consider(frame.head(), &headers);
    finish(&ctx, &frame, &headers, Direction::Rx, verdict)
}

/// Twice in the object, so that the common case is one check and no helper.
#[inline(always)]
fn headers<F: Frame>(frame: &F, head: Option<Head<'_, F>>) -> Headers {
    match head {
        Some(head) => parse(&head),
        None => parse(frame),
    }
}

#[inline(always)]
fn consider<F: Frame>(head: Option<Head<'_, F>>, headers: &Headers) -> Verdict {
    match head {
        Some(head) => classify(&head, headers, Direction::Rx, &Maps),
        None => Verdict::Pass,
    }
}

/// Counts, and carries out what was decided.
#[inline(always)]
fn finish<C: Hook>(
    ctx: &C,
    frame: &impl Frame,
    headers: &Headers,
    direction: Direction,
    verdict: Verdict,
) -> C::Action {
    let wire = wire(frame, headers);
    count::count(direction, headers, wire, verdict);
    report::report(ctx, direction, headers, wire, verdict);
    match tables::is_dry_run() {
        true => ctx.act(Verdict::Pass),
        false => ctx.act(verdict),
    }
}

/// A hook's way to carry out a verdict.
trait Hook: EbpfContext {
    /// What its programs return.
    type Action;

    fn act(&self, verdict: Verdict) -> Self::Action;
}

/// The helpers that we call are for GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

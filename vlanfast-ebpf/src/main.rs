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
use vlanfast_common::{
    Direction, Frame, HEAD, Headers, Verdict, classify, is_plain, parse, wire,
};

/// Ingress, before the kernel has made an skb of the frame.
#[xdp]
pub fn vlanfast_xdp(ctx: XdpContext) -> u32 {
    let frame = xdp::XdpFrame::new(&ctx);
    let consider = |headers| consider_xdp(ctx.ctx, headers);
    let verdict = decide(&ctx, &frame, frame.head(), Direction::Rx, consider);
    xdp::act(&ctx, verdict)
}

/// Ingress, where XDP is not to be had.
#[classifier]
pub fn vlanfast_rx(ctx: TcContext) -> i32 {
    let frame = tc::SkbFrame::new(&ctx);
    let consider = |headers| consider_rx(ctx.skb.skb, headers);
    let verdict = decide(&ctx, &frame, frame.head(), Direction::Rx, consider);
    tc::act(&ctx, verdict)
}

/// Egress.
#[classifier]
pub fn vlanfast_tx(ctx: TcContext) -> i32 {
    let frame = tc::SkbFrame::new(&ctx);
    let verdict = decide(&ctx, &frame, frame.head(), Direction::Tx, |_| 0);
    tc::act(&ctx, verdict)
}

#[inline(always)]
fn decide<F: Frame>(
    ctx: &impl EbpfContext,
    frame: &F,
    head: Option<Head<'_, F>>,
    direction: Direction,
    consider: impl FnOnce(u64) -> u64,
) -> Verdict {
    // Twice in the object, so that the common case is one check and no helper.
    let headers = match head {
        Some(head) => parse(&head),
        None => parse(frame),
    };
    let verdict = match is_plain(&headers, direction, &tables::Maps) {
        true => Verdict::Pass,
        false => Verdict::from_bits(consider(headers.to_bits())),
    };
    let wire = wire(frame, &headers);
    count::count(direction, &headers, wire, verdict);
    report::report(ctx, direction, &headers, wire, verdict);
    match tables::is_dry_run() {
        true => Verdict::Pass,
        false => verdict,
    }
}

// What is not plain is a BPF function of its own: whatever it needs of registers and stack is nothing to
// those frames that are. It takes and returns numbers, which the verifier can follow.

#[inline(never)]
fn consider_xdp(ctx: *mut xdp_md, headers: u64) -> u64 {
    let ctx = XdpContext::new(ctx);
    let frame = xdp::XdpFrame::new(&ctx);
    consider(frame.head(), headers)
}

#[inline(never)]
fn consider_rx(skb: *mut __sk_buff, headers: u64) -> u64 {
    let ctx = TcContext::new(skb);
    // Some drivers leave no more than the addresses in one piece with the skb.
    if tc::SkbFrame::new(&ctx).head().is_none() && ctx.pull_data(HEAD as u32).is_err() {
        return Verdict::Pass.to_bits();
    }
    let frame = tc::SkbFrame::new(&ctx);
    consider(frame.head(), headers)
}

#[inline(always)]
fn consider<F: Frame>(head: Option<Head<'_, F>>, headers: u64) -> u64 {
    let headers = Headers::from_bits(headers);
    let verdict = match head {
        Some(head) => classify(&head, &headers, Direction::Rx, &tables::Maps),
        None => Verdict::Pass,
    };
    verdict.to_bits()
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

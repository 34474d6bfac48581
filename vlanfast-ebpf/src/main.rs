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
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use head::Head;
use vlanfast_common::{Direction, Frame, Headers, Verdict, classify, parse, wire};

/// Ingress, before the kernel has made an skb of the frame.
#[xdp]
pub fn vlanfast_xdp(ctx: XdpContext) -> u32 {
    let frame = xdp::XdpFrame::new(&ctx);
    xdp::act(&ctx, decide(&ctx, &frame, frame.head(), Direction::Rx))
}

/// Ingress, where XDP is not to be had.
#[classifier]
pub fn vlanfast_rx(ctx: TcContext) -> i32 {
    let frame = tc::SkbFrame::new(&ctx);
    tc::act(&ctx, decide(&ctx, &frame, frame.head(), Direction::Rx))
}

/// Egress.
#[classifier]
pub fn vlanfast_tx(ctx: TcContext) -> i32 {
    let frame = tc::SkbFrame::new(&ctx);
    tc::act(&ctx, decide(&ctx, &frame, frame.head(), Direction::Tx))
}

#[inline(always)]
fn decide<F: Frame>(
    ctx: &impl EbpfContext,
    frame: &F,
    head: Option<Head<'_, F>>,
    direction: Direction,
) -> Verdict {
    // Twice in the object, so that the common case is one check and no helper.
    let (headers, verdict) = match head {
        Some(head) => classified(&head, direction),
        None => classified(frame, direction),
    };
    let wire = wire(frame, &headers);
    count::count(direction, &headers, wire, verdict);
    report::report(ctx, direction, &headers, wire, verdict);
    match tables::is_dry_run() {
        true => Verdict::Pass,
        false => verdict,
    }
}

#[inline(always)]
fn classified(frame: &impl Frame, direction: Direction) -> (Headers, Verdict) {
    let headers = parse(frame);
    let verdict = classify(frame, &headers, direction, &tables::Maps);
    (headers, verdict)
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

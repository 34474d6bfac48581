//! The XDP program of the trunk. [`pipeline`] says why it is split into BPF functions.

use aya_ebpf::{bindings::xdp_md, programs::XdpContext};
use vlanfast_common::{Direction, Headers, Switches, Verdict, checks_sender_mac, is_plain};

use super::frame::XdpFrame;
use crate::{log, lookup::Maps, pipeline};

/// Decides over a frame that came in, and returns the XDP action.
#[inline(always)]
pub fn trunk(ctx: &XdpContext) -> u32 {
    if Maps::XDP.sheds_vlans() {
        return shed(ctx);
    }
    receive(ctx)
}

/// Drops a frame that is shed, before any function call, so that a flood of such frames stays cheap.
/// All others pay for the call of [`receive_xdp`].
#[inline(always)]
fn shed(ctx: &XdpContext) -> u32 {
    let frame = XdpFrame::new(ctx);
    let Some((headers, verdict)) = pipeline::shed(frame.linear()) else {
        return receive_xdp(ctx.ctx);
    };
    if log::is_enabled() {
        log_xdp(ctx.ctx, verdict.to_bits());
    }
    pipeline::finish(ctx, &frame, &headers, Direction::Rx, verdict)
}

/// Passes a plain frame, and has all others decided over.
#[inline(always)]
fn receive(ctx: &XdpContext) -> u32 {
    let frame = XdpFrame::new(ctx);
    let headers = pipeline::headers(&frame, frame.linear());
    if !is_plain(&frame, &headers, Direction::Rx, &Maps::XDP) {
        return decide_and_finish(ctx, &frame, headers.to_bits());
    }
    if log::is_enabled() {
        log_xdp(ctx.ctx, Verdict::Pass.to_bits());
    }
    pipeline::pass(ctx, &frame, &headers, Direction::Rx)
}

/// Decides over a frame that is not plain, and carries the verdict out.
#[inline(always)]
fn decide_and_finish(ctx: &XdpContext, frame: &XdpFrame<'_>, headers: u64) -> u32 {
    let headers = log::opaque(headers);
    let mut verdict = Verdict::Pass.to_bits();
    if Maps::XDP.learns() {
        verdict = learn_xdp(ctx.ctx, headers);
    }
    if verdict == Verdict::Pass.to_bits() {
        if checks_sender_mac(
            frame,
            &Headers::from_bits(headers),
            Direction::Rx,
            &Maps::XDP,
        ) {
            check_sender_mac_xdp(ctx.ctx, headers);
        }
        verdict = decide_xdp(ctx.ctx, headers);
    }
    finish_xdp(ctx.ctx, headers, log::opaque(verdict))
}

/// Does as [`receive`] for frames that are not shed. It is a BPF function of its own, so that its
/// registers and stack cost nothing to those that are.
#[inline(never)]
fn receive_xdp(ctx: *mut xdp_md) -> u32 {
    receive(&XdpContext::new(ctx))
}

#[inline(never)]
fn learn_xdp(ctx: *mut xdp_md, headers: u64) -> u64 {
    let ctx = XdpContext::new(ctx);
    let frame = XdpFrame::new(&ctx);
    pipeline::learn(frame.linear(), headers, Direction::Rx, &Maps::XDP)
}

#[inline(never)]
fn check_sender_mac_xdp(ctx: *mut xdp_md, headers: u64) {
    let ctx = XdpContext::new(ctx);
    let frame = XdpFrame::new(&ctx);
    pipeline::check_sender_mac(frame.linear(), headers, &Maps::XDP);
}

#[inline(never)]
fn decide_xdp(ctx: *mut xdp_md, headers: u64) -> u64 {
    let ctx = XdpContext::new(ctx);
    let frame = XdpFrame::new(&ctx);
    pipeline::decide(frame.linear(), headers, Direction::Rx, &Maps::XDP)
}

#[inline(never)]
fn finish_xdp(ctx: *mut xdp_md, headers: u64, verdict: u64) -> u32 {
    if log::is_enabled() {
        log_xdp(ctx, verdict);
    }
    let ctx = XdpContext::new(ctx);
    let frame = XdpFrame::new(&ctx);
    let (headers, verdict) = (Headers::from_bits(headers), Verdict::from_bits(verdict));
    pipeline::finish(&ctx, &frame, &headers, Direction::Rx, verdict)
}

/// Logs a frame, which it parses anew: its own stack has room for the message.
#[inline(never)]
fn log_xdp(ctx: *mut xdp_md, verdict: u64) {
    let ctx = XdpContext::new(ctx);
    let frame = XdpFrame::new(&ctx);
    let headers = pipeline::headers(&frame, frame.linear());
    log::frame(&ctx, &frame, Direction::Rx, &headers, verdict);
}

//! The TC programs of the trunk, for ingress and egress. [`pipeline`] says why they are split into
//! BPF functions.

use aya_ebpf::{bindings::__sk_buff, programs::TcContext};
use vlanfast_common::{
    Direction, Frame, Headers, Packet, Protocol, Switches, Verdict, checks_sender_mac, decides,
    is_plain, learn, learnable, parse, shortcut,
};

use super::frame::{IPV4_END, IPV6_END, SkbFrame, pull_headers};
use crate::{log, lookup::Maps, pipeline};

/// Decides over a frame that comes in or leaves by the trunk, and returns the TC action.
///
/// The first question is, on ingress, whether the frame is shed, and, on egress, whether it takes
/// the shortcut.
#[inline(always)]
pub fn trunk(ctx: &TcContext, direction: Direction) -> i32 {
    if direction == Direction::Rx && Maps::TC.sheds_vlans() {
        let action = shed_skb(ctx.skb.skb);
        if action != 0 {
            return action;
        }
    }
    // The message about a frame that leaves does not depend on its verdict.
    if direction == Direction::Tx && log::is_enabled() {
        log_skb(ctx.skb.skb, Verdict::Pass.to_bits(), direction as u32);
    }
    if direction == Direction::Tx && Maps::TC.takes_shortcuts() {
        let action = shortcut_skb(ctx.skb.skb);
        if action != 0 {
            return action;
        }
    }
    let frame = SkbFrame::new(ctx);
    let headers = pipeline::headers(&frame, frame.linear());
    if !is_plain(&frame, &headers, direction, &Maps::TC) {
        let headers = log::opaque(headers.to_bits());
        let mut verdict = Verdict::Pass.to_bits();
        if Maps::TC.learns() {
            verdict = learn_skb(ctx.skb.skb, headers, direction);
        }
        if verdict == Verdict::Pass.to_bits() && decides(direction, &Maps::TC) {
            if checks_sender_mac(&frame, &Headers::from_bits(headers), direction, &Maps::TC) {
                check_sender_mac_skb(ctx.skb.skb, headers);
            }
            verdict = decide_skb(ctx.skb.skb, headers, direction);
        }
        return finish_skb(ctx.skb.skb, headers, log::opaque(verdict), direction);
    }
    if direction == Direction::Rx && log::is_enabled() {
        log_skb(ctx.skb.skb, Verdict::Pass.to_bits(), direction as u32);
    }
    pipeline::pass(ctx, &frame, &headers, direction)
}

/// Drops a frame that is shed, and returns the action; 0 for any other frame. No verdict has the
/// action 0 (`TC_ACT_OK`).
#[inline(never)]
fn shed_skb(skb: *mut __sk_buff) -> i32 {
    let ctx = TcContext::new(skb);
    pull_headers(&ctx);
    let frame = SkbFrame::new(&ctx);
    let Some((headers, verdict)) = pipeline::shed(frame.linear()) else {
        return 0;
    };
    if log::is_enabled() {
        log_skb(skb, verdict.to_bits(), Direction::Rx as u32);
    }
    pipeline::finish(&ctx, &frame, &headers, Direction::Rx, verdict)
}

/// Forwards a packet that takes the shortcut of `--shortcut allow`, and returns the action; 0 for
/// any other frame.
///
/// If the VLAN is the device's own, the packet is single and its headers are in one piece, which is
/// the common case, they are read straight from memory.
#[inline(never)]
fn shortcut_skb(skb: *mut __sk_buff) -> i32 {
    let ctx = TcContext::new(skb);
    pull_headers(&ctx);
    let frame = SkbFrame::new(&ctx);
    let Some(linear) = frame.linear().filter(|_| !frame.is_disguised()) else {
        return 0;
    };
    let headers = parse(&linear);
    // With a constant offset, which the verifier needs.
    let without_tag = Headers {
        network: Headers::ETHERNET,
        ..headers
    };
    match headers.protocol {
        Protocol::IPV4 if headers == without_tag => {
            if let Some(linear) = frame.linear_headers::<IPV4_END>() {
                return take_shortcut(&ctx, &linear, &without_tag);
            }
        }
        Protocol::IPV6 if headers == without_tag => {
            if let Some(linear) = frame.linear_headers::<IPV6_END>() {
                return take_shortcut(&ctx, &linear, &without_tag);
            }
        }
        _ => {}
    }
    take_shortcut(&ctx, &frame, &headers)
}

#[inline(always)]
fn take_shortcut(ctx: &TcContext, frame: &impl Frame, headers: &Headers) -> i32 {
    match shortcut(frame, headers, Direction::Tx, &Maps::TC) {
        verdict @ Verdict::Shortcut { .. } => {
            pipeline::finish(ctx, frame, headers, Direction::Tx, verdict)
        }
        _ => 0,
    }
}

/// Returns the verdict of `--shortcut learned`, as bits. It holds the packet; reading it and learning
/// from it are BPF functions that need a stack each.
#[inline(never)]
fn learn_skb(skb: *mut __sk_buff, headers: u64, direction: Direction) -> u64 {
    let mut packet = Packet::default();
    match packet_skb(skb, headers, direction, &mut packet) {
        true => learn_packet(&packet, direction),
        false => Verdict::Pass.to_bits(),
    }
}

/// Reads a packet to learn from into `packet`, and returns whether the frame is one.
#[inline(never)]
fn packet_skb(
    skb: *mut __sk_buff,
    headers: u64,
    direction: Direction,
    packet: &mut Packet,
) -> bool {
    let ctx = TcContext::new(skb);
    pull_headers(&ctx);
    let frame = SkbFrame::new(&ctx);
    if direction == Direction::Tx && frame.is_disguised() {
        return false;
    }
    let headers = Headers::from_bits(headers);
    let read = frame
        .linear()
        .and_then(|linear| learnable(&linear, &headers, direction));
    if let Some(read) = read {
        *packet = read;
    }
    read.is_some()
}

#[inline(never)]
fn learn_packet(packet: &Packet, direction: Direction) -> u64 {
    learn(packet, direction, &Maps::TC).to_bits()
}

#[inline(never)]
fn check_sender_mac_skb(skb: *mut __sk_buff, headers: u64) {
    let ctx = TcContext::new(skb);
    pull_headers(&ctx);
    let frame = SkbFrame::new(&ctx);
    pipeline::check_sender_mac(frame.linear(), headers, &Maps::TC);
}

/// Returns the verdict over a frame that is neither shed nor takes a shortcut, as bits. A frame that
/// leaves disguised is passed, as its tag can't be taken off.
#[inline(never)]
fn decide_skb(skb: *mut __sk_buff, headers: u64, direction: Direction) -> u64 {
    let ctx = TcContext::new(skb);
    pull_headers(&ctx);
    let frame = SkbFrame::new(&ctx);
    let verdict = pipeline::decide(frame.linear(), headers, direction, &Maps::TC);
    match direction == Direction::Tx && frame.is_disguised() {
        true => Verdict::Pass.to_bits(),
        false => verdict,
    }
}

#[inline(never)]
fn finish_skb(skb: *mut __sk_buff, headers: u64, verdict: u64, direction: Direction) -> i32 {
    if direction == Direction::Rx && log::is_enabled() {
        log_skb(skb, verdict, direction as u32);
    }
    let ctx = TcContext::new(skb);
    let frame = SkbFrame::new(&ctx);
    let (headers, verdict) = (Headers::from_bits(headers), Verdict::from_bits(verdict));
    pipeline::finish(&ctx, &frame, &headers, direction, verdict)
}

/// Logs a frame. It is a global function (`no_mangle`), so that the verifier goes through the
/// messages once in each program, and not once for every path to them. Such a function has to
/// return a number, and takes a [`Direction`] as one.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn log_skb(skb: *mut __sk_buff, verdict: u64, direction: u32) -> u32 {
    let direction = match direction {
        0 => Direction::Rx,
        _ => Direction::Tx,
    };
    let ctx = TcContext::new(skb);
    let frame = SkbFrame::new(&ctx);
    let headers = pipeline::headers(&frame, frame.linear());
    log::frame(&ctx, &frame, direction, &headers, verdict);
    0
}

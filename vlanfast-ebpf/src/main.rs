//! The programs. On the trunk, a packet's way is hook → [`Frame`] → `parse` → `classify` → `act`, and
//! counting at the one exit; on VLAN devices, it is [`parent`]. All decisions are in `vlanfast-common`.
#![no_std]
#![no_main]

mod count;
mod head;
mod maps;
mod meet;
mod parent;
mod report;
mod lookup;
mod tc;
mod xdp;

use aya_ebpf::{
    bindings::{__sk_buff, xdp_md},
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use head::LinearFrame;
use lookup::Maps;
use vlanfast_common::{
    Direction, Frame, LINEAR_LEN, Headers, Packet, Protocol, Tables, Verdict, decide, decides, is_plain,
    learn, learnable, parse, shed, shortcut, wire,
};

/// Ingress, before the kernel has made an skb of the frame.
#[xdp]
pub fn vlanfast_xdp(ctx: XdpContext) -> u32 {
    if Maps::XDP.sheds_vlans() {
        return shed_xdp(&ctx);
    }
    receive(&ctx)
}

#[inline(always)]
fn receive(ctx: &XdpContext) -> u32 {
    let frame = xdp::XdpFrame::new(ctx);
    let headers = headers(&frame, frame.head());
    if !is_plain(&frame, &headers, Direction::Rx, &Maps::XDP) {
        let headers = report::unknown(headers.to_bits());
        let mut verdict = Verdict::Pass.to_bits();
        if Maps::XDP.learns() {
            verdict = learn_xdp(ctx.ctx, headers);
        }
        if verdict == Verdict::Pass.to_bits() {
            meet::xdp(ctx, &frame, headers);
            verdict = decide_xdp(ctx.ctx, headers);
        }
        return finish_xdp(ctx.ctx, headers, report::unknown(verdict));
    }
    if report::is_on() {
        report_xdp(ctx.ctx, Verdict::Pass.to_bits());
    }
    pass(ctx, &frame, &headers, Direction::Rx)
}

/// Ingress, where XDP is not to be had.
#[classifier]
pub fn vlanfast_rx(ctx: TcContext) -> i32 {
    skb(&ctx, Direction::Rx)
}

/// Egress.
#[classifier]
pub fn vlanfast_tx(ctx: TcContext) -> i32 {
    skb(&ctx, Direction::Tx)
}

/// Egress of a VLAN's own device.
#[classifier]
pub fn vlanfast_parent(ctx: TcContext) -> i32 {
    parent::parent(&ctx)
}

#[inline(always)]
fn skb(ctx: &TcContext, direction: Direction) -> i32 {
    if direction == Direction::Rx && Maps::TC.sheds_vlans() {
        let shed = shed_skb(ctx.skb.skb);
        if shed != 0 {
            return shed;
        }
    }
    // What is said of a frame that leaves is the same whatever becomes of it.
    if direction == Direction::Tx && report::is_on() {
        report_skb(ctx.skb.skb, Verdict::Pass.to_bits(), direction);
    }
    if direction == Direction::Tx && Maps::TC.takes_shortcuts() {
        let taken = shortcut_skb(ctx.skb.skb);
        if taken != 0 {
            return taken;
        }
    }
    let frame = tc::SkbFrame::new(ctx);
    let headers = headers(&frame, frame.head());
    if !is_plain(&frame, &headers, direction, &Maps::TC) {
        let headers = report::unknown(headers.to_bits());
        let mut verdict = Verdict::Pass.to_bits();
        if Maps::TC.learns() {
            verdict = learn_skb(ctx.skb.skb, headers, direction);
        }
        if verdict == Verdict::Pass.to_bits() && decides(direction, &Maps::TC) {
            meet::skb(ctx, &frame, headers, direction);
            verdict = decide_skb(ctx.skb.skb, headers, direction);
        }
        let verdict = report::unknown(verdict);
        return finish_skb(ctx.skb.skb, headers, verdict, direction);
    }
    if direction == Direction::Rx && report::is_on() {
        report_skb(ctx.skb.skb, Verdict::Pass.to_bits(), direction);
    }
    pass(ctx, &frame, &headers, direction)
}

// What is not plain goes through BPF functions of its own, so that whatever it needs of registers and stack
// is nothing to those frames that are. Several, one after the other, because a chain of calls has 512 bytes
// of stack. They take and return numbers, because the verifier does not follow structures.

/// A flood of frames that are shed has to be cheap, so they come first, and the others pay for the call.
#[inline(always)]
fn shed_xdp(ctx: &XdpContext) -> u32 {
    let frame = xdp::XdpFrame::new(ctx);
    let Some((headers, verdict)) = shed_head(frame.head()) else {
        return receive_xdp(ctx.ctx);
    };
    if report::is_on() {
        report_xdp(ctx.ctx, verdict.to_bits());
    }
    finish(ctx, &frame, &headers, Direction::Rx, verdict)
}

#[inline(never)]
fn receive_xdp(ctx: *mut xdp_md) -> u32 {
    receive(&XdpContext::new(ctx))
}

#[inline(never)]
fn decide_xdp(ctx: *mut xdp_md, headers: u64) -> u64 {
    let ctx = XdpContext::new(ctx);
    let frame = xdp::XdpFrame::new(&ctx);
    decide_head(frame.head(), headers, Direction::Rx, &Maps::XDP)
}

#[inline(never)]
fn learn_xdp(ctx: *mut xdp_md, headers: u64) -> u64 {
    let ctx = XdpContext::new(ctx);
    let frame = xdp::XdpFrame::new(&ctx);
    learn_head(frame.head(), headers, Direction::Rx, &Maps::XDP)
}

#[inline(never)]
fn finish_xdp(ctx: *mut xdp_md, headers: u64, verdict: u64) -> u32 {
    if report::is_on() {
        report_xdp(ctx, verdict);
    }
    let ctx = XdpContext::new(ctx);
    let frame = xdp::XdpFrame::new(&ctx);
    let (headers, verdict) = (Headers::from_bits(headers), Verdict::from_bits(verdict));
    finish(&ctx, &frame, &headers, Direction::Rx, verdict)
}

#[inline(never)]
fn report_xdp(ctx: *mut xdp_md, verdict: u64) {
    let ctx = XdpContext::new(ctx);
    let frame = xdp::XdpFrame::new(&ctx);
    let headers = headers(&frame, frame.head());
    report::report(&ctx, &frame, Direction::Rx, &headers, verdict);
}

/// What the hook returns for a frame that is shed; 0 for one that is not, which means nothing else.
#[inline(never)]
fn shed_skb(skb: *mut __sk_buff) -> i32 {
    let ctx = TcContext::new(skb);
    pull_head(&ctx);
    let frame = tc::SkbFrame::new(&ctx);
    let Some((headers, verdict)) = shed_head(frame.head()) else {
        return 0;
    };
    if report::is_on() {
        report_skb(skb, verdict.to_bits(), Direction::Rx);
    }
    finish(&ctx, &frame, &headers, Direction::Rx, verdict)
}

#[inline(never)]
fn decide_skb(skb: *mut __sk_buff, headers: u64, direction: Direction) -> u64 {
    let ctx = TcContext::new(skb);
    pull_head(&ctx);
    let frame = tc::SkbFrame::new(&ctx);
    let verdict = decide_head(frame.head(), headers, direction, &Maps::TC);
    match direction == Direction::Tx && frame.is_disguised() {
        true => Verdict::Pass.to_bits(),
        false => verdict,
    }
}

/// What the hook returns for a packet that takes the shortcut; 0 for one that does not. The usual packet's
/// headers are read straight from memory.
#[inline(never)]
fn shortcut_skb(skb: *mut __sk_buff) -> i32 {
    /// Behind a tag that is not among the bytes.
    const NETWORK: usize = Headers::ETHERNET;
    let ctx = TcContext::new(skb);
    pull_head(&ctx);
    let frame = tc::SkbFrame::new(&ctx);
    let Some(head) = frame.head().filter(|_| !frame.is_disguised()) else {
        return 0;
    };
    let headers = parse(&head);
    let usual = Headers {
        network: NETWORK,
        ..headers
    };
    match headers.protocol {
        Protocol::IPV4 if headers == usual => {
            if let Some(start) = frame.start::<{ NETWORK + 20 }>() {
                return take_shortcut(&ctx, &start, &usual);
            }
        }
        Protocol::IPV6 if headers == usual => {
            if let Some(start) = frame.start::<{ NETWORK + 40 }>() {
                return take_shortcut(&ctx, &start, &usual);
            }
        }
        _ => {}
    }
    take_shortcut(&ctx, &frame, &headers)
}

#[inline(always)]
fn take_shortcut(ctx: &TcContext, frame: &impl Frame, headers: &Headers) -> i32 {
    match shortcut(frame, headers, Direction::Tx, &Maps::TC) {
        verdict @ Verdict::Shortcut { .. } => finish(ctx, frame, headers, Direction::Tx, verdict),
        _ => 0,
    }
}

/// What is read and what is learnt from it need a stack each.
#[inline(never)]
fn learn_skb(skb: *mut __sk_buff, headers: u64, direction: Direction) -> u64 {
    let mut packet = Packet::default();
    match packet_skb(skb, headers, direction, &mut packet) {
        true => learn_packet(&packet, direction),
        false => Verdict::Pass.to_bits(),
    }
}

/// Reads a packet to learn from; whether it is one.
#[inline(never)]
fn packet_skb(
    skb: *mut __sk_buff,
    headers: u64,
    direction: Direction,
    packet: &mut Packet,
) -> bool {
    let ctx = TcContext::new(skb);
    pull_head(&ctx);
    let frame = tc::SkbFrame::new(&ctx);
    if direction == Direction::Tx && frame.is_disguised() {
        return false;
    }
    let headers = Headers::from_bits(headers);
    let read = frame
        .head()
        .and_then(|head| learnable(&head, &headers, direction));
    if let Some(read) = read {
        *packet = read;
    }
    read.is_some()
}

#[inline(never)]
fn learn_packet(packet: &Packet, direction: Direction) -> u64 {
    learn(packet, direction, &Maps::TC).to_bits()
}

/// Some drivers leave no more than the addresses in one piece with the skb.
#[inline(always)]
fn pull_head(ctx: &TcContext) {
    if tc::SkbFrame::new(ctx).head().is_none() {
        let _ = ctx.pull_data(LINEAR_LEN as u32);
    }
}

#[inline(never)]
fn finish_skb(skb: *mut __sk_buff, headers: u64, verdict: u64, direction: Direction) -> i32 {
    if direction == Direction::Rx && report::is_on() {
        report_skb(skb, verdict, direction);
    }
    let ctx = TcContext::new(skb);
    let frame = tc::SkbFrame::new(&ctx);
    let (headers, verdict) = (Headers::from_bits(headers), Verdict::from_bits(verdict));
    finish(&ctx, &frame, &headers, direction, verdict)
}

/// A global function: the verifier goes through its messages once in each program, and not for every way to them.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn say_skb(skb: *mut __sk_buff, verdict: u64, direction: u32) -> u32 {
    let direction = match direction {
        0 => Direction::Rx,
        _ => Direction::Tx,
    };
    let ctx = TcContext::new(skb);
    let frame = tc::SkbFrame::new(&ctx);
    let headers = headers(&frame, frame.head());
    report::report(&ctx, &frame, direction, &headers, verdict);
    0
}

#[inline(always)]
fn report_skb(skb: *mut __sk_buff, verdict: u64, direction: Direction) {
    say_skb(skb, verdict, direction as u32);
}

/// Twice in the object, so that the common case is one check and no helper.
#[inline(always)]
fn headers<F: Frame>(frame: &F, head: Option<LinearFrame<'_, F>>) -> Headers {
    match head {
        Some(head) => parse(&head),
        None => parse(frame),
    }
}

#[inline(always)]
fn shed_head<F: Frame>(head: Option<LinearFrame<'_, F>>) -> Option<(Headers, Verdict)> {
    let head = head?;
    let headers = parse(&head);
    let reason = shed(&head, &headers, Direction::Rx, &Maps::TC)?;
    Some((headers, Verdict::Drop(reason)))
}

#[inline(always)]
fn decide_head<F: Frame>(
    head: Option<LinearFrame<'_, F>>,
    headers: u64,
    direction: Direction,
    maps: &Maps,
) -> u64 {
    let headers = Headers::from_bits(headers);
    let verdict = match head {
        Some(head) => decide(&head, &headers, direction, maps),
        None => Verdict::Pass,
    };
    verdict.to_bits()
}

/// The verdict by the router's word.
#[inline(always)]
fn learn_head<F: Frame>(
    head: Option<LinearFrame<'_, F>>,
    headers: u64,
    direction: Direction,
    maps: &Maps,
) -> u64 {
    let headers = Headers::from_bits(headers);
    let packet = head.and_then(|head| learnable(&head, &headers, direction));
    let learnt = packet.map_or(Verdict::Pass, |packet| learn(&packet, direction, maps));
    learnt.to_bits()
}

/// Counts a plain frame: whether this is a dry run would be two instructions more, and no difference.
#[inline(always)]
fn pass<C: Hook>(
    ctx: &C,
    frame: &impl Frame,
    headers: &Headers,
    direction: Direction,
) -> C::Action {
    let wire = wire(frame, headers);
    count::count(direction, headers, wire, Verdict::Pass, Verdict::Pass);
    ctx.act(frame, headers, Verdict::Pass)
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
    let done = match lookup::is_dry_run() {
        true => Verdict::Pass,
        false => verdict,
    };
    count::count(direction, headers, wire, verdict, done);
    ctx.act(frame, headers, done)
}

/// A hook's way to carry out a verdict.
trait Hook {
    /// What its programs return.
    type Action;

    fn act(&self, frame: &impl Frame, headers: &Headers, verdict: Verdict) -> Self::Action;
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

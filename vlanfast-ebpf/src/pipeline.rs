//! The steps that both hooks share, in the order in which a program takes them: [`headers`], then
//! [`pass`] for a plain frame, and [`shed`], [`learn`], [`check_sender_mac`], [`decide`] and [`finish`] for any
//! other.
//!
//! Frames that are not plain go through BPF functions of their own (`#[inline(never)]` in
//! `xdp/program.rs` and `tc/program.rs`). Registers and stack that such a function needs then cost
//! plain frames nothing. There are several, called one after the other, because all functions of a
//! call chain share 512 bytes of stack. They take and return integers, because the verifier forgets
//! what is in a structure that is passed by reference; `to_bits` and `from_bits` convert.

use vlanfast_common::{Direction, Frame, Headers, Verdict, learnable, parse, wire};

use crate::{count, linear::LinearFrame, lookup, lookup::Maps};

/// A hook's way to carry out a verdict.
pub trait Act {
    /// What the hook's programs return to the kernel.
    type Action;

    /// Changes or redirects the frame as the verdict says, and returns what the program has to
    /// return.
    fn act(&self, frame: &impl Frame, headers: &Headers, verdict: Verdict) -> Self::Action;
}

/// Parses a frame, from its linear part if that holds all of layer 2.
///
/// The parser is compiled twice, so that the common case takes one bounds check and no helper call.
#[inline(always)]
pub fn headers<F: Frame>(frame: &F, linear: Option<LinearFrame<'_, F>>) -> Headers {
    match linear {
        Some(linear) => parse(&linear),
        None => parse(frame),
    }
}

/// Returns the headers of a frame that came in and is shed, and the reason; `None` for all others.
#[inline(always)]
pub fn shed<F: Frame>(linear: Option<LinearFrame<'_, F>>) -> Option<(Headers, Verdict)> {
    let linear = linear?;
    let headers = parse(&linear);
    let reason = vlanfast_common::shed(&linear, &headers, Direction::Rx, &Maps::TC)?;
    Some((headers, Verdict::Drop(reason)))
}

/// Returns the verdict of `--shortcut learned` over a frame, as bits.
#[inline(always)]
pub fn learn<F: Frame>(
    linear: Option<LinearFrame<'_, F>>,
    headers: u64,
    direction: Direction,
    maps: &Maps,
) -> u64 {
    let headers = Headers::from_bits(headers);
    let packet = linear.and_then(|linear| learnable(&linear, &headers, direction));
    let verdict = packet.map_or(Verdict::Pass, |packet| {
        vlanfast_common::learn(&packet, direction, maps)
    });
    verdict.to_bits()
}

/// Notes when a frame shows that a station on the wire has the MAC of a container.
#[inline(always)]
pub fn check_sender_mac<F: Frame>(linear: Option<LinearFrame<'_, F>>, headers: u64, maps: &Maps) {
    if let Some(linear) = linear {
        vlanfast_common::check_sender_mac(
            &linear,
            &Headers::from_bits(headers),
            Direction::Rx,
            maps,
        );
    }
}

/// Returns the verdict over a frame that is neither shed nor takes a shortcut, as bits.
#[inline(always)]
pub fn decide<F: Frame>(
    linear: Option<LinearFrame<'_, F>>,
    headers: u64,
    direction: Direction,
    maps: &Maps,
) -> u64 {
    let headers = Headers::from_bits(headers);
    let verdict = linear.map_or(Verdict::Pass, |linear| {
        vlanfast_common::decide(&linear, &headers, direction, maps)
    });
    verdict.to_bits()
}

/// Counts a plain frame and passes it.
///
/// It does not ask whether this is a dry run: that makes no difference here, and would cost every
/// frame two instructions.
#[inline(always)]
pub fn pass<C: Act>(
    ctx: &C,
    frame: &impl Frame,
    headers: &Headers,
    direction: Direction,
) -> C::Action {
    let wire = wire(frame, headers);
    count::frame(direction, headers, wire, Verdict::Pass, Verdict::Pass);
    ctx.act(frame, headers, Verdict::Pass)
}

/// Counts a frame and carries out its verdict; in a dry run, passes it.
#[inline(always)]
pub fn finish<C: Act>(
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
    count::frame(direction, headers, wire, verdict, done);
    ctx.act(frame, headers, done)
}

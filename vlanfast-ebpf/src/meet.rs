//! Who on the wire has a container's MAC: on a stack of its own, like all that is not plain.

use aya_ebpf::{
    bindings::{__sk_buff, xdp_md},
    programs::{TcContext, XdpContext},
};
use vlanfast_common::{Direction, Frame, Headers, meet, meets};

use crate::{head::LinearFrame, pull_head, lookup::Maps, tc::SkbFrame, xdp::XdpFrame};

#[inline(always)]
pub fn xdp(ctx: &XdpContext, frame: &XdpFrame<'_>, headers: u64) {
    if meets(
        frame,
        &Headers::from_bits(headers),
        Direction::Rx,
        &Maps::XDP,
    ) {
        meet_xdp(ctx.ctx, headers);
    }
}

#[inline(always)]
pub fn skb(ctx: &TcContext, frame: &SkbFrame<'_>, headers: u64, direction: Direction) {
    if meets(frame, &Headers::from_bits(headers), direction, &Maps::TC) {
        meet_skb(ctx.skb.skb, headers);
    }
}

#[inline(never)]
fn meet_xdp(ctx: *mut xdp_md, headers: u64) {
    let ctx = XdpContext::new(ctx);
    let frame = XdpFrame::new(&ctx);
    head(frame.head(), headers, &Maps::XDP);
}

#[inline(never)]
fn meet_skb(skb: *mut __sk_buff, headers: u64) {
    let ctx = TcContext::new(skb);
    pull_head(&ctx);
    let frame = SkbFrame::new(&ctx);
    head(frame.head(), headers, &Maps::TC);
}

#[inline(always)]
fn head<F: Frame>(head: Option<LinearFrame<'_, F>>, headers: u64, maps: &Maps) {
    if let Some(head) = head {
        meet(&head, &Headers::from_bits(headers), Direction::Rx, maps);
    }
}

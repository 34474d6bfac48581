//! The shortcut of `--shortcut allow` from a VLAN's own device. A packet is redirected before 8021q
//! has tagged it and before it enters the trunk's queue. After the first packet between two
//! endpoints, the tables are not asked: the route is in `SHORTCUT_CACHE`.

use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_UNSPEC},
    programs::TcContext,
};
use vlanfast_common::{
    Direction, Frame, Headers, Hop, IpVersion, Protocol, RouteCacheEntry, V4, V6, Verdict, Vid,
    Vlan, heartbeat, parse, shortcut_of,
};

use super::{
    act::{IPV4_CHANGED_END, IPV6_CHANGED_END, RoutedHeaders, redirect},
    frame::{IPV4_END, IPV6_END, SkbFrame, pull_headers},
};
use crate::{
    count,
    linear::LinearHeaders,
    lookup::Maps,
    maps::{DEVICES, SHORTCUT_CACHE},
    pipeline,
};

/// Redirects a packet that takes the shortcut, and returns the TC action. All others go on to the
/// trunk, whose program parses and counts them.
#[inline(always)]
pub fn vlan_device(ctx: &TcContext) -> i32 {
    let frame = SkbFrame::new(ctx);
    // A frame that has a tag here belongs to a VLAN inside this one.
    if frame.stripped_tag().is_some() {
        return TC_ACT_UNSPEC;
    }
    let Some(linear) = frame.linear_headers::<IPV4_END>() else {
        return slow_path(ctx.skb.skb);
    };
    let action = match linear.read(12).map(u16::from_be_bytes) {
        Some(number) if number == Protocol::IPV4.number() => {
            fast_path::<V4, IPV4_END, IPV4_CHANGED_END>(ctx, &linear, Hop::Ipv4)
        }
        Some(number) if number == Protocol::IPV6.number() => {
            let Some(linear) = frame.linear_headers::<IPV6_END>() else {
                return slow_path(ctx.skb.skb);
            };
            fast_path::<V6, IPV6_END, IPV6_CHANGED_END>(ctx, &linear, Hop::Ipv6)
        }
        _ => None,
    };
    action.unwrap_or(TC_ACT_UNSPEC)
}

/// Redirects a single packet whose headers are in one piece; `None` if it does not take the
/// shortcut.
///
/// `LENGTH` is where the network header ends in the frame, and `CHANGED` where, in the network
/// header, the bytes end that a hop changes.
#[inline(always)]
fn fast_path<V: IpVersion, const LENGTH: usize, const CHANGED: usize>(
    ctx: &TcContext,
    linear: &LinearHeaders<'_, SkbFrame<'_>, LENGTH>,
    hop: Hop,
) -> Option<i32> {
    let slot = RouteCacheEntry::slot::<V>(linear)?;
    let heartbeat = heartbeat(&Maps::TC)?;
    let entry = SHORTCUT_CACHE.get_ptr_mut(slot)?;
    // SAFETY: the value belongs to this CPU, which runs our programs one after the other; nothing
    // else holds a reference to it.
    let is_hit = unsafe { &*entry }.is_of::<V>(linear, ifindex(ctx), heartbeat);
    if !is_hit && !fill_entry::<V, LENGTH>(ctx.skb.skb, slot, heartbeat) {
        return None;
    }
    // SAFETY: the value belongs to this CPU, and `fill_entry` has returned.
    let entry = unsafe { &*entry };
    if !entry.takes(linear.len()) {
        return None;
    }
    // If the store fails, nothing was written, and the packet goes to the router as it is.
    let headers = entry.headers::<V>();
    let routed = RoutedHeaders::<_, CHANGED>::new(linear, &headers, hop, entry.next)?;
    routed.store(ctx).then(|| {
        count::shortcut(headers.vlan);
        redirect(ctx, entry.to)
    })
}

/// Looks up where a packet goes, and stores it in a slot of the cache; returns whether it could.
///
/// It is a BPF function of its own, so that packets whose entry is there do not pay for its
/// registers and stack.
#[inline(never)]
fn fill_entry<V: IpVersion, const LENGTH: usize>(
    skb: *mut __sk_buff,
    slot: u32,
    heartbeat: u64,
) -> bool {
    let ctx = TcContext::new(skb);
    let frame = SkbFrame::new(&ctx);
    let (Some(linear), Some(vid), Some(entry)) = (
        frame.linear_headers::<LENGTH>(),
        vid(&ctx),
        SHORTCUT_CACHE.get_ptr_mut(slot),
    ) else {
        return false;
    };
    // SAFETY: the value belongs to this CPU, which runs our programs one after the other; the caller
    // holds no reference to it now.
    let entry = unsafe { &mut *entry };
    entry.find::<V>(&linear, ifindex(&ctx), vid, heartbeat, &Maps::TC)
}

/// Decides over a buffer of several packets, or one whose headers are in pieces, as the trunk's
/// program does, and returns the TC action.
#[inline(never)]
fn slow_path(skb: *mut __sk_buff) -> i32 {
    let ctx = TcContext::new(skb);
    pull_headers(&ctx);
    let frame = SkbFrame::new(&ctx);
    let (Some(linear), Some(vid)) = (frame.linear(), vid(&ctx)) else {
        return TC_ACT_UNSPEC;
    };
    let headers = parse(&linear);
    if headers.vlan != Vlan::UNTAGGED || headers.network != Headers::ETHERNET {
        return TC_ACT_UNSPEC;
    }
    let headers = Headers {
        vlan: Vlan::id(vid),
        ..headers
    };
    match shortcut_of(&frame, &headers, vid, &Maps::TC) {
        Verdict::Pass => TC_ACT_UNSPEC,
        verdict => pipeline::finish(&ctx, &frame, &headers, Direction::Tx, verdict),
    }
}

#[inline(always)]
fn ifindex(ctx: &TcContext) -> u32 {
    // SAFETY: the context is the kernel's for as long as the program runs.
    unsafe { (*ctx.skb.skb).ifindex }
}

/// Returns the VID of the device by which the packet leaves.
#[inline(always)]
fn vid(ctx: &TcContext) -> Option<Vid> {
    // SAFETY: a value is 4 bytes, which the kernel copies as one.
    let vid = unsafe { DEVICES.get(ifindex(ctx)) }?;
    Some(Vid::new(*vid as u16))
}

//! The shortcut from a VLAN's own device: before 8021q and the trunk's queue, without a tag, and for the second
//! packet between two without a look into the tables.

use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_UNSPEC},
    programs::TcContext,
};
use vlanfast_common::{
    Direction, Frame, Headers, Hop, Protocol, Verdict, Vid, Vlan, RouteCacheEntry, heartbeat, parse,
    shortcut_of,
};

use crate::{
    count, finish,
    head::LinearHeaders,
    maps::{DEVICES, SHORTCUT_CACHE},
    pull_head,
    lookup::Maps,
    tc::{Routed, SkbFrame, redirect},
};

/// Up to behind the network header.
const LENGTH_4: usize = Headers::ETHERNET + 20;
const LENGTH_6: usize = Headers::ETHERNET + 40;

/// What does not take the shortcut is the trunk's program's to read and count.
#[inline(always)]
pub fn parent(ctx: &TcContext) -> i32 {
    let frame = SkbFrame::new(ctx);
    // One that has a tag is of a VLAN within this one.
    if frame.stripped_tag().is_some() {
        return TC_ACT_UNSPEC;
    }
    let Some(start) = frame.start::<LENGTH_4>() else {
        return unusual(ctx.skb.skb);
    };
    let taken = match start.read(12).map(u16::from_be_bytes) {
        Some(number) if number == Protocol::IPV4.number() => {
            usual::<{ RouteCacheEntry::IPV4 }, LENGTH_4, 12>(ctx, &start, Hop::Ipv4)
        }
        Some(number) if number == Protocol::IPV6.number() => match frame.start::<LENGTH_6>() {
            Some(start) => usual::<{ RouteCacheEntry::IPV6 }, LENGTH_6, 8>(ctx, &start, Hop::Ipv6),
            None => return unusual(ctx.skb.skb),
        },
        _ => None,
    };
    taken.unwrap_or(TC_ACT_UNSPEC)
}

/// A single packet, whose headers are in one piece. What a hop changes ends `N` bytes behind the start of its network
/// header.
#[inline(always)]
fn usual<const ENDS: usize, const LENGTH: usize, const N: usize>(
    ctx: &TcContext,
    start: &LinearHeaders<'_, SkbFrame<'_>, LENGTH>,
    hop: Hop,
) -> Option<i32> {
    let slot = RouteCacheEntry::slot::<ENDS>(start)?;
    let heartbeat = heartbeat(&Maps::TC)?;
    let way = SHORTCUT_CACHE.get_ptr_mut(slot)?;
    // SAFETY: the value belongs to this CPU, which runs our programs one after the other; nobody else has a
    // reference.
    let is_known = unsafe { &*way }.is_of::<ENDS>(start, ifindex(ctx), heartbeat);
    if !is_known && !find::<ENDS, LENGTH>(ctx.skb.skb, slot, heartbeat) {
        return None;
    }
    // SAFETY: as above.
    let way = unsafe { &*way };
    if !way.takes(start.len()) {
        return None;
    }
    // Nothing was written where it can't be, and the router still has it.
    let headers = way.headers::<ENDS>();
    let routed = Routed::<_, N>::new(start, &headers, hop, way.next)?;
    routed.store(ctx).then(|| {
        count::shortcut(headers.vlan);
        redirect(ctx, way.to)
    })
}

/// Finds the way of a packet, and keeps it for the next one.
#[inline(never)]
fn find<const ENDS: usize, const LENGTH: usize>(
    skb: *mut __sk_buff,
    slot: u32,
    heartbeat: u64,
) -> bool {
    let ctx = TcContext::new(skb);
    let frame = SkbFrame::new(&ctx);
    let (Some(start), Some(vid), Some(way)) =
        (frame.start::<LENGTH>(), vid(&ctx), SHORTCUT_CACHE.get_ptr_mut(slot))
    else {
        return false;
    };
    // SAFETY: the value belongs to this CPU, which runs our programs one after the other; nobody else has a
    // reference.
    unsafe { &mut *way }.find::<ENDS>(&start, ifindex(&ctx), vid, heartbeat, &Maps::TC)
}

/// A buffer of several packets, or one in pieces: read as the trunk's program does.
#[inline(never)]
fn unusual(skb: *mut __sk_buff) -> i32 {
    let ctx = TcContext::new(skb);
    pull_head(&ctx);
    let frame = SkbFrame::new(&ctx);
    let (Some(head), Some(vid)) = (frame.head(), vid(&ctx)) else {
        return TC_ACT_UNSPEC;
    };
    let headers = parse(&head);
    if headers.vlan != Vlan::UNTAGGED || headers.network != Headers::ETHERNET {
        return TC_ACT_UNSPEC;
    }
    let headers = Headers {
        vlan: Vlan::id(vid),
        ..headers
    };
    match shortcut_of(&frame, &headers, vid, &Maps::TC) {
        Verdict::Pass => TC_ACT_UNSPEC,
        verdict => finish(&ctx, &frame, &headers, Direction::Tx, verdict),
    }
}

#[inline(always)]
fn ifindex(ctx: &TcContext) -> u32 {
    // SAFETY: the context is the kernel's for as long as the program runs.
    unsafe { (*ctx.skb.skb).ifindex }
}

/// That of the device which the packet leaves by.
#[inline(always)]
fn vid(ctx: &TcContext) -> Option<Vid> {
    // SAFETY: a value is 4 bytes, which the kernel copies as one.
    let vid = unsafe { DEVICES.get(ifindex(ctx)) }?;
    Some(Vid::new(*vid as u16))
}

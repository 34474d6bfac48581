//! Carries out a verdict in TC.

use aya_ebpf::{
    EbpfContext,
    bindings::{BPF_F_INGRESS, BPF_F_RECOMPUTE_CSUM, TC_ACT_SHOT, TC_ACT_UNSPEC},
    helpers::{bpf_redirect, bpf_skb_vlan_pop, bpf_skb_vlan_push},
    programs::TcContext,
};
use vlanfast_common::{Frame, Headers, Hop, Lookup, Mac, Parent, Tag, Verdict};

use super::frame::SkbFrame;
use crate::{lookup::Maps, pipeline::Act};

/// A frame for this host (`include/uapi/linux/if_packet.h`).
const PACKET_HOST: u32 = 0;

/// Where the bytes end that a hop changes, from the start of an IPv4 header.
pub const IPV4_CHANGED_END: usize = Hop::Ipv4.offset() + 4;

/// Where the bytes end that a hop changes, from the start of an IPv6 header.
pub const IPV6_CHANGED_END: usize = Hop::Ipv6.offset() + 4;

impl Act for TcContext {
    type Action = i32;

    /// Passes with `TC_ACT_UNSPEC`, so that other programs on the hook run, and then the kernel's
    /// own path.
    #[inline(always)]
    fn act(&self, frame: &impl Frame, headers: &Headers, verdict: Verdict) -> i32 {
        match verdict {
            Verdict::Pass | Verdict::Conflict | Verdict::Hairpin => TC_ACT_UNSPEC,
            Verdict::Steer { mac } => steer(self, mac),
            Verdict::Reflect { mac } => reflect(self, vlan_device(headers), mac),
            Verdict::Shortcut { vid, mac } => {
                shortcut(self, frame, headers, Maps::TC.parent(vid), mac)
            }
            Verdict::ShortcutAndProbe { vid, mac } => {
                shortcut_and_probe(self, frame, headers, Maps::TC.parent(vid), mac)
            }
            Verdict::CloneToLocal { mac } => clone_to_local(self, vlan_device(headers), mac),
            Verdict::Deliver { ifindex } => deliver(self, ifindex),
            Verdict::Drop(_) => TC_ACT_SHOT,
        }
    }
}

/// Returns the ifindex of the device of a frame's VLAN; 0 if it has gone since.
#[inline(always)]
fn vlan_device(headers: &Headers) -> u32 {
    headers
        .vlan
        .vid()
        .map_or(0, |vid| Maps::TC.parent(vid).ifindex)
}

/// Writes the receiver's MAC, and passes the frame. If it can't be written, it stays a broadcast,
/// and reaches its receiver as one.
#[inline(always)]
fn steer(ctx: &TcContext, mac: Mac) -> i32 {
    if ctx.store(0, &mac.0, 0).is_ok() {
        // The kernel sets this type for a frame that came with such a MAC.
        let _ = ctx.change_type(PACKET_HOST);
    }
    TC_ACT_UNSPEC
}

/// Takes the tag off, and has the kernel receive the frame at the device of its VLAN.
#[inline(always)]
fn reflect(ctx: &TcContext, device: u32, mac: Mac) -> i32 {
    if device == 0 {
        return TC_ACT_UNSPEC;
    }
    let is_tagged = SkbFrame::new(ctx).stripped_tag().is_some();
    if is_tagged && !pop_tag(ctx) || ctx.store(0, &mac.0, 0).is_err() {
        return TC_ACT_SHOT;
    }
    redirect(ctx, device)
}

/// Has the kernel receive a frame that was sent at a device, as if it came from the wire there.
#[inline(always)]
pub fn redirect(ctx: &TcContext, device: u32) -> i32 {
    // A frame from the wire has no mark. This one may have its sender's, and macvlan would keep it.
    ctx.set_mark(0);
    // SAFETY: the helper takes no pointers.
    unsafe { bpf_redirect(device, BPF_F_INGRESS.into()) as i32 }
}

/// Passes the frame, and has the kernel receive a clone of it at the device of its VLAN.
#[inline(always)]
fn clone_to_local(ctx: &TcContext, device: u32, to: Mac) -> i32 {
    let Some(original) = Original::untag(ctx) else {
        return TC_ACT_UNSPEC;
    };
    if ctx.store(0, &to.0, 0).is_ok() {
        let _ = original.clone_to(device);
    }
    original.restore()
}

/// What a frame was before it was changed to be cloned. The kernel clones a frame as it is, so it
/// has to look like the clone while that is made: without its tag, and with other addresses.
struct Original<'a> {
    ctx: &'a TcContext,
    tag: Option<Tag>,
    mark: u32,
    addresses: [u8; 12],
}

impl<'a> Original<'a> {
    /// Takes the tag off, if there is one in metadata; `None` if that fails, and the frame is as it
    /// was.
    #[inline(always)]
    fn untag(ctx: &'a TcContext) -> Option<Self> {
        let frame = SkbFrame::new(ctx);
        let tag = frame.stripped_tag();
        // SAFETY: the context is the kernel's for as long as the program runs.
        let mark = unsafe { (*ctx.skb.skb).mark };
        let addresses = frame.read(0)?;
        (tag.is_none() || pop_tag(ctx)).then_some(Self {
            ctx,
            tag,
            mark,
            addresses,
        })
    }

    /// Has the kernel receive a clone at a device; returns whether it does.
    #[inline(always)]
    fn clone_to(&self, device: u32) -> bool {
        self.ctx.set_mark(0);
        let cloned = self.ctx.clone_redirect(device, BPF_F_INGRESS.into());
        self.ctx.set_mark(self.mark);
        cloned.is_ok()
    }

    /// Gives the frame its addresses and its tag again, and passes it. If that fails, the frame is
    /// dropped: without its tag, it would be on another VLAN.
    #[inline(always)]
    fn restore(self) -> i32 {
        let restored = self.ctx.store(0, &self.addresses, 0).is_ok();
        match self.tag {
            Some(tag) if !push_tag(self.ctx, tag) => TC_ACT_SHOT,
            _ if !restored => TC_ACT_SHOT,
            _ => TC_ACT_UNSPEC,
        }
    }
}

/// Forwards a packet as the router would, and has the kernel receive it at the device of the other
/// VLAN.
#[inline(always)]
fn shortcut(ctx: &TcContext, frame: &impl Frame, headers: &Headers, to: Parent, mac: Mac) -> i32 {
    match Hop::of(headers) {
        Some(Hop::Ipv4) => forward::<IPV4_CHANGED_END>(ctx, frame, headers, Hop::Ipv4, to, mac),
        Some(Hop::Ipv6) => forward::<IPV6_CHANGED_END>(ctx, frame, headers, Hop::Ipv6, to, mac),
        None => TC_ACT_UNSPEC,
    }
}

/// Forwards a packet whose version of IP is known: `CHANGED` is where the bytes end that a hop
/// changes, from the start of the network header.
#[inline(always)]
fn forward<const CHANGED: usize>(
    ctx: &TcContext,
    frame: &impl Frame,
    headers: &Headers,
    hop: Hop,
    to: Parent,
    mac: Mac,
) -> i32 {
    let addresses = [mac, Mac(to.mac)];
    let routed = RoutedHeaders::<_, CHANGED>::new(frame, headers, hop, addresses);
    let Some(routed) = routed.filter(|_| to.ifindex != 0) else {
        return TC_ACT_UNSPEC;
    };
    if frame.stripped_tag().is_some() && !pop_tag(ctx) {
        return TC_ACT_SHOT;
    }
    match (routed.store(ctx), frame.stripped_tag()) {
        (true, _) => redirect(ctx, to.ifindex),
        // With its tag again, the packet can still go to the router.
        (false, Some(tag)) if push_tag(ctx, tag) => TC_ACT_UNSPEC,
        (false, _) => TC_ACT_SHOT,
    }
}

/// The first bytes of an untagged frame that a router has forwarded: the Ethernet header, and
/// `CHANGED` bytes of the network header, up to the end of what a hop changes. They are written by
/// one helper call.
#[repr(C)]
pub struct RoutedHeaders<Addresses, const CHANGED: usize> {
    addresses: Addresses,
    protocol: [u8; 2],
    network: [u8; CHANGED],
}

impl<Addresses, const CHANGED: usize> RoutedHeaders<Addresses, CHANGED> {
    /// Makes them of a packet's own, with the MAC addresses of the next link; `None` if the packet
    /// ends before.
    #[inline(always)]
    pub fn new(
        frame: &impl Frame,
        headers: &Headers,
        hop: Hop,
        addresses: Addresses,
    ) -> Option<Self> {
        let mut network = frame.whole().read::<CHANGED>(headers.network)?;
        let changed = &mut network[hop.offset()..];
        let [a, b, c, d] = *changed else { return None };
        changed.copy_from_slice(&hop.take([a, b, c, d]));
        Some(Self {
            addresses,
            protocol: headers.protocol.number().to_be_bytes(),
            network,
        })
    }

    /// Writes them to a frame whose tag was taken off; returns whether it could be written.
    #[inline(always)]
    pub fn store(&self, ctx: &TcContext) -> bool {
        ctx.store(0, self, BPF_F_RECOMPUTE_CSUM.into()).is_ok()
    }
}

/// Forwards a clone of the packet, and passes the packet itself to the router, as a probe.
///
/// If the packet can't be cloned, it is forwarded itself, and the router, which gets no probe, has
/// nothing to answer.
#[inline(always)]
fn shortcut_and_probe(
    ctx: &TcContext,
    frame: &impl Frame,
    headers: &Headers,
    to: Parent,
    mac: Mac,
) -> i32 {
    let Some(hop) = Hop::of(headers).filter(|_| to.ifindex != 0) else {
        return TC_ACT_UNSPEC;
    };
    let at = headers.network + hop.offset();
    let (Some(bytes), Some(original)) = (frame.whole().read(at), Original::untag(ctx)) else {
        return shortcut(ctx, frame, headers, to, mac);
    };
    let recompute = BPF_F_RECOMPUTE_CSUM.into();
    let is_written = ctx.store(at, &hop.take(bytes), recompute).is_ok()
        && ctx.store(0, &[mac.0, to.mac], 0).is_ok();
    if !is_written {
        return TC_ACT_SHOT;
    }
    if !original.clone_to(to.ifindex) {
        return redirect(ctx, to.ifindex);
    }
    match ctx.store(at, &bytes, recompute) {
        Ok(()) => original.restore(),
        Err(_) => TC_ACT_SHOT,
    }
}

/// Takes the tag off, and has the kernel receive the frame at the device of its receiver. If the tag
/// can't be taken off, the frame is passed, and the kernel's own path leads to the same receiver.
#[inline(always)]
fn deliver(ctx: &TcContext, device: u32) -> i32 {
    // Behind a priority tag there may be another, which the kernel then moves into metadata.
    let is_untagged = pop_tag(ctx) && (SkbFrame::new(ctx).stripped_tag().is_none() || pop_tag(ctx));
    if !is_untagged {
        return TC_ACT_UNSPEC;
    }
    // SAFETY: the helper takes no pointers.
    unsafe { bpf_redirect(device, BPF_F_INGRESS.into()) as i32 }
}

#[inline(always)]
fn pop_tag(ctx: &TcContext) -> bool {
    // SAFETY: the context is the kernel's.
    unsafe { bpf_skb_vlan_pop(ctx.as_ptr().cast()) == 0 }
}

#[inline(always)]
fn push_tag(ctx: &TcContext, tag: Tag) -> bool {
    // SAFETY: the context is the kernel's.
    unsafe { bpf_skb_vlan_push(ctx.as_ptr().cast(), tag.tpid.to_be(), tag.tci) == 0 }
}

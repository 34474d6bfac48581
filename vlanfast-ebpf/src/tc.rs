//! What TC offers of a frame, and how it carries out a verdict.

use aya_ebpf::{
    EbpfContext,
    bindings::{__sk_buff, BPF_F_INGRESS, BPF_F_RECOMPUTE_CSUM, TC_ACT_SHOT, TC_ACT_UNSPEC},
    helpers::{bpf_redirect, bpf_skb_load_bytes, bpf_skb_vlan_pop, bpf_skb_vlan_push},
    programs::TcContext,
};
use vlanfast_common::{
    Frame, Headers, Hop, Mac, Message, Parent, Repeated, Segments, Tables, Tag, Verdict, Vid,
    repeated,
};

use crate::{
    Hook,
    head::{self, LinearFrame, LinearHeaders},
    lookup::Maps,
};

pub struct SkbFrame<'a> {
    ctx: &'a TcContext,
    tag: Option<Tag>,
}

impl<'a> SkbFrame<'a> {
    #[inline(always)]
    pub fn new(ctx: &'a TcContext) -> Self {
        // SAFETY: the context is the kernel's for as long as the program runs.
        let skb = unsafe { &*ctx.skb.skb };
        // Read in any case: where only frames with a tag had read it, the verifier of Linux 6.1 takes it for unset
        // at the next question whether there is one.
        let tag = Tag {
            tpid: u16::from_be(skb.vlan_proto as u16),
            tci: skb.vlan_tci as u16,
        };
        let tag = (skb.vlan_present != 0).then_some(tag);
        Self { ctx, tag }
    }

    /// Whether the kernel takes the frame for one with a tag among its bytes, as its sender may have said of a
    /// packet socket's: to take a tag off would take bytes out of it that may be no tag.
    #[inline(always)]
    pub fn is_disguised(&self) -> bool {
        // SAFETY: the context is the kernel's for as long as the program runs.
        let protocol = unsafe { (*self.ctx.skb.skb).protocol };
        Tag::is_tpid(u16::from_be(protocol as u16))
    }

    /// What is in the skb's linear part.
    #[inline(always)]
    pub fn head(&self) -> Option<LinearFrame<'_, Self>> {
        LinearFrame::of(self, self.ctx.data(), self.ctx.data_end())
    }

    /// The same up to behind a header; `None` of a buffer of several packets.
    #[inline(always)]
    pub fn start<const LENGTH: usize>(&self) -> Option<LinearHeaders<'_, Self, LENGTH>> {
        let head = LinearFrame::of(self, self.ctx.data(), self.ctx.data_end())?;
        self.segments().is_none().then_some(LinearHeaders(head))
    }
}

impl Frame for SkbFrame<'_> {
    type Whole = Self;

    #[inline(always)]
    fn whole(&self) -> &Self {
        self
    }

    #[inline(always)]
    fn len(&self) -> usize {
        self.ctx.len() as usize
    }

    /// By a helper: behind the linear part, or at an offset that depends on the packet.
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let skb = self.ctx.skb.skb.cast();
        // SAFETY: the context is the kernel's, and the buffer has the length.
        head::filled(|to, length| unsafe { bpf_skb_load_bytes(skb, offset as u32, to, length) })
    }

    /// The kernel moves an outer tag into metadata before TC ingress; on egress it is there until
    /// the driver puts it into the bytes.
    #[inline(always)]
    fn stripped_tag(&self) -> Option<Tag> {
        self.tag
    }

    #[inline(always)]
    fn segments(&self) -> Option<Segments> {
        // SAFETY: the context is the kernel's for as long as the program runs.
        let skb = unsafe { &*self.ctx.skb.skb };
        (skb.gso_size != 0).then_some(Segments {
            count: skb.gso_segs,
            size: skb.gso_size,
        })
    }

    #[inline(always)]
    fn repeated(&self, headers: &Headers) -> Repeated {
        Repeated::from_bits(repeated_skb(self.ctx.skb.skb, headers.to_bits()))
    }

    #[inline(always)]
    fn message(&self, headers: &Headers, vid: Vid) -> Message {
        let mut message = Message::default();
        message_skb(self.ctx.skb.skb, headers.to_bits(), vid.get(), &mut message);
        message
    }
}

/// A global function: the verifier goes through its many headers once in each program, with whatever arguments,
/// and not for every way to every place that counts.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn repeated_skb(skb: *mut __sk_buff, headers: u64) -> u64 {
    let ctx = TcContext::new(skb);
    repeated(&SkbFrame::new(&ctx), &Headers::from_bits(headers)).to_bits()
}

/// On a stack of its own, because what is decided by it needs one as well.
#[inline(never)]
fn message_skb(skb: *mut __sk_buff, headers: u64, vid: u16, message: &mut Message) {
    let ctx = TcContext::new(skb);
    let frame = SkbFrame::new(&ctx);
    message.read(&frame, &Headers::from_bits(headers), Vid::new(vid));
}

impl Hook for TcContext {
    type Action = i32;

    /// Passing is `TC_ACT_UNSPEC`: whatever else is attached to the hook has its turn, then the kernel's own
    /// path.
    #[inline(always)]
    fn act(&self, frame: &impl Frame, headers: &Headers, verdict: Verdict) -> i32 {
        match verdict {
            Verdict::Pass | Verdict::Conflict | Verdict::Hairpin => TC_ACT_UNSPEC,
            Verdict::Steer { mac } => {
                // One that can't be written stays a broadcast, and reaches its receiver as such.
                if self.store(0, &mac.0, 0).is_ok() {
                    // What it would be if it had come with that MAC.
                    let _ = self.change_type(PACKET_HOST);
                }
                TC_ACT_UNSPEC
            }
            Verdict::Reflect { mac } => reflect(self, device(headers), mac),
            Verdict::Shortcut { vid, mac } => {
                shortcut(self, frame, headers, Maps::TC.parent(vid), mac)
            }
            Verdict::ShortcutAndProbe { vid, mac } => both(self, frame, headers, Maps::TC.parent(vid), mac),
            Verdict::CloneToLocal { mac } => copy(self, device(headers), mac),
            Verdict::Deliver { ifindex } => deliver(self, ifindex),
            Verdict::Drop(_) => TC_ACT_SHOT,
        }
    }
}

/// `include/uapi/linux/if_packet.h`.
const PACKET_HOST: u32 = 0;

/// The device of a frame's VLAN; 0 where it has gone since.
#[inline(always)]
fn device(headers: &Headers) -> u32 {
    headers
        .vlan
        .vid()
        .map_or(0, |vid| Maps::TC.parent(vid).ifindex)
}

/// Takes the tag off, and has the kernel receive the frame at the device of its VLAN.
#[inline(always)]
fn reflect(ctx: &TcContext, device: u32, mac: Mac) -> i32 {
    if device == 0 {
        return TC_ACT_UNSPEC;
    }
    let is_tagged = SkbFrame::new(ctx).tag.is_some();
    if is_tagged && !pop(ctx) || ctx.store(0, &mac.0, 0).is_err() {
        return TC_ACT_SHOT;
    }
    redirect(ctx, device)
}

/// Has the kernel receive a frame at a device.
#[inline(always)]
pub fn redirect(ctx: &TcContext, device: u32) -> i32 {
    // As what comes from the wire: a mark is its sender's, and macvlan would keep it.
    ctx.set_mark(0);
    // SAFETY: no pointers.
    unsafe { bpf_redirect(device, BPF_F_INGRESS.into()) as i32 }
}

/// The same with a copy, which the frame itself has to look like while it is made.
#[inline(always)]
fn copy(ctx: &TcContext, device: u32, to: Mac) -> i32 {
    let Some(original) = Original::take(ctx) else {
        return TC_ACT_UNSPEC;
    };
    if ctx.store(0, &to.0, 0).is_ok() {
        let _ = original.copy_to(device);
    }
    original.restore()
}

/// A frame that looks like its copy for a moment: without its tag.
struct Original<'a> {
    ctx: &'a TcContext,
    tag: Option<Tag>,
    mark: u32,
    addresses: [u8; 12],
}

impl<'a> Original<'a> {
    /// Takes the tag off, which is in metadata if there is one.
    #[inline(always)]
    fn take(ctx: &'a TcContext) -> Option<Self> {
        let frame = SkbFrame::new(ctx);
        let tag = frame.tag;
        // SAFETY: the context is the kernel's for as long as the program runs.
        let mark = unsafe { (*ctx.skb.skb).mark };
        let addresses = frame.read(0)?;
        (tag.is_none() || pop(ctx)).then_some(Self {
            ctx,
            tag,
            mark,
            addresses,
        })
    }

    /// Has the kernel receive a copy at a device; whether it does.
    #[inline(always)]
    fn copy_to(&self, device: u32) -> bool {
        self.ctx.set_mark(0);
        let copied = self.ctx.clone_redirect(device, BPF_F_INGRESS.into());
        self.ctx.set_mark(self.mark);
        copied.is_ok()
    }

    /// Passes it as it was.
    #[inline(always)]
    fn restore(self) -> i32 {
        let restored = self.ctx.store(0, &self.addresses, 0).is_ok();
        match self.tag {
            // Without it, it would be on another VLAN.
            Some(tag) if !push(self.ctx, tag) => TC_ACT_SHOT,
            _ if !restored => TC_ACT_SHOT,
            _ => TC_ACT_UNSPEC,
        }
    }
}

/// Does what the router would, and has the kernel receive the packet at the device of the other VLAN.
#[inline(always)]
fn shortcut(ctx: &TcContext, frame: &impl Frame, headers: &Headers, to: Parent, mac: Mac) -> i32 {
    match Hop::of(headers) {
        Some(Hop::Ipv4) => forward::<12>(ctx, frame, headers, Hop::Ipv4, to, mac),
        Some(Hop::Ipv6) => forward::<8>(ctx, frame, headers, Hop::Ipv6, to, mac),
        None => TC_ACT_UNSPEC,
    }
}

/// The same, where what a hop changes ends `N` bytes behind the start of the network header.
#[inline(always)]
fn forward<const N: usize>(
    ctx: &TcContext,
    frame: &impl Frame,
    headers: &Headers,
    hop: Hop,
    to: Parent,
    mac: Mac,
) -> i32 {
    let addresses = [mac, Mac(to.mac)];
    let routed = Routed::<_, N>::new(frame, headers, hop, addresses);
    let Some(routed) = routed.filter(|_| to.ifindex != 0) else {
        return TC_ACT_UNSPEC;
    };
    if frame.stripped_tag().is_some() && !pop(ctx) {
        return TC_ACT_SHOT;
    }
    match (routed.store(ctx), frame.stripped_tag()) {
        (true, _) => redirect(ctx, to.ifindex),
        // With its tag again it can still go to the router.
        (false, Some(tag)) if push(ctx, tag) => TC_ACT_UNSPEC,
        (false, _) => TC_ACT_SHOT,
    }
}

/// What an untagged frame starts with that a router has sent on, up to behind what a hop changes: `N` bytes of the
/// network header.
#[repr(C)]
pub struct Routed<Addresses, const N: usize> {
    addresses: Addresses,
    protocol: [u8; 2],
    network: [u8; N],
}

impl<Addresses, const N: usize> Routed<Addresses, N> {
    #[inline(always)]
    pub fn new(
        frame: &impl Frame,
        headers: &Headers,
        hop: Hop,
        addresses: Addresses,
    ) -> Option<Self> {
        let mut network = frame.whole().read::<N>(headers.network)?;
        let changed = &mut network[hop.offset()..];
        let [a, b, c, d] = *changed else { return None };
        changed.copy_from_slice(&hop.take([a, b, c, d]));
        Some(Self {
            addresses,
            protocol: headers.protocol.number().to_be_bytes(),
            network,
        })
    }

    /// Writes it to a frame that has no tag any more; whether it could be written.
    #[inline(always)]
    pub fn store(&self, ctx: &TcContext) -> bool {
        ctx.store(0, self, BPF_F_RECOMPUTE_CSUM.into()).is_ok()
    }
}

/// The same with a copy, while the packet itself goes to the router. Where there can be none, it does not: then
/// the router has nothing to answer.
#[inline(always)]
fn both(ctx: &TcContext, frame: &impl Frame, headers: &Headers, to: Parent, mac: Mac) -> i32 {
    let Some(hop) = Hop::of(headers).filter(|_| to.ifindex != 0) else {
        return TC_ACT_UNSPEC;
    };
    let at = headers.network + hop.offset();
    let (Some(bytes), Some(original)) = (frame.whole().read(at), Original::take(ctx)) else {
        return shortcut(ctx, frame, headers, to, mac);
    };
    let recompute = BPF_F_RECOMPUTE_CSUM.into();
    let looks_like_it = ctx.store(at, &hop.take(bytes), recompute).is_ok()
        && ctx.store(0, &[mac.0, to.mac], 0).is_ok();
    if !looks_like_it {
        return TC_ACT_SHOT;
    }
    if !original.copy_to(to.ifindex) {
        return redirect(ctx, to.ifindex);
    }
    match ctx.store(at, &bytes, recompute) {
        Ok(()) => original.restore(),
        Err(_) => TC_ACT_SHOT,
    }
}

/// Takes the tag off, and has the kernel receive the frame at the device of its receiver. One that can't be
/// taken off leads there by the kernel's own path.
#[inline(always)]
fn deliver(ctx: &TcContext, device: u32) -> i32 {
    // Behind a priority tag is another, which the kernel moves to the place of the first.
    let is_untagged = pop(ctx) && (SkbFrame::new(ctx).tag.is_none() || pop(ctx));
    if !is_untagged {
        return TC_ACT_UNSPEC;
    }
    // SAFETY: no pointers.
    unsafe { bpf_redirect(device, BPF_F_INGRESS.into()) as i32 }
}

#[inline(always)]
fn pop(ctx: &TcContext) -> bool {
    // SAFETY: the context is the kernel's.
    unsafe { bpf_skb_vlan_pop(ctx.as_ptr().cast()) == 0 }
}

#[inline(always)]
fn push(ctx: &TcContext, tag: Tag) -> bool {
    // SAFETY: the context is the kernel's.
    unsafe { bpf_skb_vlan_push(ctx.as_ptr().cast(), tag.tpid.to_be(), tag.tci) == 0 }
}

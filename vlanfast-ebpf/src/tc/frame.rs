//! A frame as TC shows it: an skb.

use aya_ebpf::{bindings::__sk_buff, helpers::bpf_skb_load_bytes, programs::TcContext};
use vlanfast_common::{
    Frame, Headers, LINEAR_LEN, Message, Repeated, Segments, Tag, Vid, repeated,
};

use crate::linear::{self, LinearFrame, LinearHeaders};

/// Where an IPv4 header without options ends, in a frame without a tag among its bytes.
pub const IPV4_END: usize = Headers::ETHERNET + 20;

/// Where an IPv6 header ends, in a frame without a tag among its bytes.
pub const IPV6_END: usize = Headers::ETHERNET + 40;

/// An skb, which may stand for several packets and may have its headers in pieces.
pub struct SkbFrame<'a> {
    ctx: &'a TcContext,
    tag: Option<Tag>,
}

impl<'a> SkbFrame<'a> {
    #[inline(always)]
    pub fn new(ctx: &'a TcContext) -> Self {
        // SAFETY: the context is the kernel's for as long as the program runs.
        let skb = unsafe { &*ctx.skb.skb };
        // The fields are read even where there is no tag. If only frames with a tag read them, the
        // verifier of Linux 6.1 takes them for unset the next time that `vlan_present` is tested.
        let tag = Tag {
            tpid: u16::from_be(skb.vlan_proto as u16),
            tci: skb.vlan_tci as u16,
        };
        let tag = (skb.vlan_present != 0).then_some(tag);
        Self { ctx, tag }
    }

    /// Whether `skb->protocol` says that a tag is among the bytes.
    ///
    /// The sender of a packet socket's frame chooses that field, so there may be no tag. To take
    /// the tag off such a frame would remove four other bytes.
    #[inline(always)]
    pub fn is_disguised(&self) -> bool {
        // SAFETY: the context is the kernel's for as long as the program runs.
        let protocol = unsafe { (*self.ctx.skb.skb).protocol };
        Tag::is_tpid(u16::from_be(protocol as u16))
    }

    /// Returns the frame with layer 2 checked at once; `None` if the linear part of the skb is
    /// shorter than that.
    #[inline(always)]
    pub fn linear(&self) -> Option<LinearFrame<'_, Self>> {
        LinearFrame::new(self, self.ctx.data(), self.ctx.data_end())
    }

    /// Returns the frame with the first `LENGTH` bytes checked at once; `None` if the linear part of
    /// the skb is shorter, or if the skb stands for several packets.
    #[inline(always)]
    pub fn linear_headers<const LENGTH: usize>(&self) -> Option<LinearHeaders<'_, Self, LENGTH>> {
        let linear = LinearFrame::new(self, self.ctx.data(), self.ctx.data_end())?;
        self.segments().is_none().then_some(LinearHeaders(linear))
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

    /// Copies the bytes by a helper, because they may be behind the linear part, or at an offset
    /// that depends on the packet.
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let skb = self.ctx.skb.skb.cast();
        // SAFETY: the context is the kernel's, and the buffer has the length.
        linear::filled(|to, length| unsafe { bpf_skb_load_bytes(skb, offset as u32, to, length) })
    }

    /// The kernel moves an outer tag into metadata before TC ingress. On egress it stays there until
    /// the driver writes it into the bytes.
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

/// Makes sure that layer 2 is in the linear part: some drivers put no more than the addresses there.
#[inline(always)]
pub fn pull_headers(ctx: &TcContext) {
    if SkbFrame::new(ctx).linear().is_none() {
        let _ = ctx.pull_data(LINEAR_LEN as u32);
    }
}

/// Returns the headers that every packet of the skb repeats, as bits.
///
/// It is a global function (`no_mangle`), so that the verifier goes through its many headers once in
/// each program, for any arguments, and not once for every path to every call.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn repeated_skb(skb: *mut __sk_buff, headers: u64) -> u64 {
    let ctx = TcContext::new(skb);
    repeated(&SkbFrame::new(&ctx), &Headers::from_bits(headers)).to_bits()
}

/// Reads an ARP, ND or DHCP message into `message`. It is a BPF function of its own because the
/// reading and the deciding each need a stack.
#[inline(never)]
fn message_skb(skb: *mut __sk_buff, headers: u64, vid: u16, message: &mut Message) {
    let ctx = TcContext::new(skb);
    let frame = SkbFrame::new(&ctx);
    message.read(&frame, &Headers::from_bits(headers), Vid::new(vid));
}

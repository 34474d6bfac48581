//! A frame as XDP shows it.

use aya_ebpf::{bindings::xdp_md, helpers::bpf_xdp_load_bytes, programs::XdpContext};
use vlanfast_common::{Frame, Headers, Message, Repeated, Segments, Tag, Vid, repeated};

use crate::linear::{self, LinearFrame};

/// A frame in the driver's buffer: `data` is its first byte, `end` the one behind its last.
pub struct XdpFrame<'a> {
    ctx: &'a XdpContext,
    data: usize,
    end: usize,
}

impl<'a> XdpFrame<'a> {
    #[inline(always)]
    pub fn new(ctx: &'a XdpContext) -> Self {
        Self {
            ctx,
            data: ctx.data(),
            end: ctx.data_end(),
        }
    }

    /// Returns the frame with layer 2 checked at once; `None` if the frame is shorter than that.
    #[inline(always)]
    pub fn linear(&self) -> Option<LinearFrame<'_, Self>> {
        LinearFrame::new(self, self.data, self.end)
    }
}

impl Frame for XdpFrame<'_> {
    type Whole = Self;

    #[inline(always)]
    fn whole(&self) -> &Self {
        self
    }

    #[inline(always)]
    fn len(&self) -> usize {
        self.end - self.data
    }

    /// Copies the bytes by a helper (Linux 5.18 and later). Behind the linear part an offset depends
    /// on the frame, and LLVM does not keep its bounds check in the form that the verifier follows.
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let ctx = self.ctx.ctx;
        // SAFETY: the context is the kernel's, and the buffer has the length.
        linear::filled(|to, length| unsafe { bpf_xdp_load_bytes(ctx, offset as u32, to, length) })
    }

    /// Returns none: the loader takes XDP only where the NIC leaves tags among the bytes, because
    /// XDP sees no metadata.
    #[inline(always)]
    fn stripped_tag(&self) -> Option<Tag> {
        None
    }

    /// Returns none: GRO merges packets after XDP.
    #[inline(always)]
    fn segments(&self) -> Option<Segments> {
        None
    }

    #[inline(always)]
    fn repeated(&self, headers: &Headers) -> Repeated {
        repeated(self, headers)
    }

    #[inline(always)]
    fn message(&self, headers: &Headers, vid: Vid) -> Message {
        let mut message = Message::default();
        message_xdp(self.ctx.ctx, headers.to_bits(), vid.get(), &mut message);
        message
    }
}

/// Reads an ARP, ND or DHCP message into `message`. It is a BPF function of its own because the
/// reading and the deciding each need a stack.
#[inline(never)]
fn message_xdp(ctx: *mut xdp_md, headers: u64, vid: u16, message: &mut Message) {
    let ctx = XdpContext::new(ctx);
    let frame = XdpFrame::new(&ctx);
    message.read(&frame, &Headers::from_bits(headers), Vid::new(vid));
}

//! Reads the headers of a frame straight from memory, after a single bounds check.

use core::{hint::assert_unchecked, mem::MaybeUninit};

use aya_ebpf::cty::{c_long, c_void};
use vlanfast_common::{Frame, Headers, LINEAR_LEN, Message, Repeated, Segments, Tag, Vid};

/// A frame whose first `LENGTH` bytes were checked at once, and are read without another check.
pub struct LinearFrame<'a, F, const LENGTH: usize = LINEAR_LEN> {
    frame: &'a F,
    start: usize,
}

impl<'a, F, const LENGTH: usize> LinearFrame<'a, F, LENGTH> {
    /// Checks that the bytes of `frame` from `start` to `end`, which are in one piece, are at least
    /// `LENGTH`. Nearly every frame passes: none is as short on a wire, and drivers leave the
    /// headers in one piece.
    #[inline(always)]
    pub fn new(frame: &'a F, start: usize, end: usize) -> Option<Self> {
        (start + LENGTH <= end).then_some(Self { frame, start })
    }
}

impl<F: Frame, const LENGTH: usize> Frame for LinearFrame<'_, F, LENGTH> {
    type Whole = F;

    #[inline(always)]
    fn whole(&self) -> &F {
        self.frame
    }

    #[inline(always)]
    fn len(&self) -> usize {
        let len = self.frame.len();
        // LLVM can't tell this from the addresses.
        // SAFETY: `new` has found so many bytes in one piece of the frame, whose length is that of
        // all its pieces. Nobody calls this after the frame was changed.
        unsafe { assert_unchecked(len >= LENGTH) };
        len
    }

    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        if offset + N > LENGTH {
            return self.frame.read(offset);
        }
        // SAFETY: `new` has checked the bounds, in the form that the verifier follows.
        Some(unsafe { load(self.start + offset, offset.is_multiple_of(2)) })
    }

    #[inline(always)]
    fn stripped_tag(&self) -> Option<Tag> {
        self.frame.stripped_tag()
    }

    #[inline(always)]
    fn segments(&self) -> Option<Segments> {
        self.frame.segments()
    }

    #[inline(always)]
    fn repeated(&self, headers: &Headers) -> Repeated {
        self.frame.repeated(headers)
    }

    #[inline(always)]
    fn message(&self, headers: &Headers, vid: Vid) -> Message {
        self.frame.message(headers, vid)
    }
}

/// A frame of one packet whose first `LENGTH` bytes, from layer 2 to the end of the network header,
/// were checked at once.
///
/// Unlike those of [`LinearFrame`], its reads behind layer 2 are unchecked as well. It serves only
/// where the network header's offset is a constant: the verifier does not follow reads at others.
pub struct LinearHeaders<'a, F, const LENGTH: usize>(pub LinearFrame<'a, F, LENGTH>);

impl<F: Frame, const LENGTH: usize> Frame for LinearHeaders<'_, F, LENGTH> {
    type Whole = Self;

    #[inline(always)]
    fn whole(&self) -> &Self {
        self
    }

    #[inline(always)]
    fn len(&self) -> usize {
        self.0.len()
    }

    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.0.read(offset)
    }

    #[inline(always)]
    fn stripped_tag(&self) -> Option<Tag> {
        self.0.stripped_tag()
    }

    #[inline(always)]
    fn segments(&self) -> Option<Segments> {
        None
    }

    #[inline(always)]
    fn repeated(&self, headers: &Headers) -> Repeated {
        self.0.repeated(headers)
    }

    #[inline(always)]
    fn message(&self, headers: &Headers, vid: Vid) -> Message {
        self.0.message(headers, vid)
    }
}

/// Loads bytes of a packet, two at a time where the caller knows `address` to be `even`.
///
/// LLVM takes an array of bytes for unaligned, and would load them one by one. Frames start at even
/// addresses. Where one does not, the CPU allows the load, and where the CPU does not, the verifier
/// refuses the program.
///
/// # Safety
///
/// The caller has checked that `N` bytes at `address` belong to the packet.
#[inline(always)]
unsafe fn load<const N: usize>(address: usize, even: bool) -> [u8; N] {
    if !even || !N.is_multiple_of(2) {
        // SAFETY: the caller has checked the bounds.
        return unsafe { *(address as *const [u8; N]) };
    }
    let mut bytes = [0; N];
    for (word, pair) in bytes.chunks_exact_mut(2).enumerate() {
        // SAFETY: the caller has checked the bounds.
        let word = unsafe { *(address as *const u16).add(word) };
        pair.copy_from_slice(&word.to_ne_bytes());
    }
    bytes
}

/// Returns the bytes that a helper has filled in; `None` unless `fill` returns 0, as helpers do on
/// success.
///
/// The buffer is aligned, so that LLVM compares words in it and does not spread single bytes over
/// registers and stack. It is not cleared before: the verifier would tell cleared bytes from filled
/// ones, and go through everything that follows once for each.
#[inline(always)]
pub fn filled<const N: usize>(fill: impl FnOnce(*mut c_void, u32) -> c_long) -> Option<[u8; N]> {
    #[repr(C, align(8))]
    struct Aligned<T>(T);

    let mut buffer = MaybeUninit::<Aligned<[u8; N]>>::uninit();
    let result = fill(buffer.as_mut_ptr().cast(), N as u32);
    // SAFETY: 0 says that all of it was filled.
    (result == 0).then(|| unsafe { buffer.assume_init() }.0)
}

//! Keeps the verifier's number of states low.

use crate::frame::Frame;

/// Returns the number unchanged, but unknown to the verifier. Otherwise it would follow every header that can come next
/// with everything that was before, and reach its limit; this way all paths to a header are one to it.
#[cfg(target_arch = "bpf")]
#[inline(always)]
pub fn forgotten(number: u16, frame: &impl Frame) -> u16 {
    let mut number = number as u64;
    // SAFETY: two times `xor` with the same number leaves the first as it was. The verifier does not know the length of
    // the frame, so it does not know the result.
    unsafe {
        core::arch::asm!(
            "{number} ^= {len}",
            "{number} ^= {len}",
            number = inout(reg) number,
            len = in(reg) frame.len() as u64,
            options(pure, nomem, nostack),
        );
    }
    number as u16
}

/// Returns the number unchanged: there is no verifier here.
#[cfg(not(target_arch = "bpf"))]
pub fn forgotten(number: u16, _: &impl Frame) -> u16 {
    number
}

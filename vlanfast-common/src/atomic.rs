//! Numbers that all CPUs share, without a lock and without an order between them.

pub use numbers::{add, load, store};

#[cfg(not(target_arch = "bpf"))]
mod numbers {
    use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

    pub fn load(number: &AtomicU64) -> u64 {
        number.load(Relaxed)
    }

    pub fn store(number: &AtomicU64, value: u64) {
        number.store(value, Relaxed);
    }

    pub fn add(number: &AtomicU64, value: u64) {
        number.fetch_add(value, Relaxed);
    }
}

/// For BPF, LLVM has no relaxed loads and stores, and Rust has no atomic addition, because the target lacks others of its
/// kind.
#[cfg(target_arch = "bpf")]
mod numbers {
    use core::{arch::asm, sync::atomic::AtomicU64};

    #[inline(always)]
    pub fn load(number: &AtomicU64) -> u64 {
        // SAFETY: the address is a reference's. It is one instruction, and the verifier refuses an unaligned one.
        unsafe { number.as_ptr().read_volatile() }
    }

    #[inline(always)]
    pub fn store(number: &AtomicU64, value: u64) {
        // SAFETY: the address is a reference's.
        unsafe { number.as_ptr().write_volatile(value) }
    }

    /// Adds by `BPF_ATOMIC | BPF_ADD`, which every kernel has (as `BPF_XADD`).
    #[inline(always)]
    pub fn add(number: &AtomicU64, value: u64) {
        // SAFETY: the address is a reference's.
        unsafe {
            asm!(
                "lock *(u64 *)({number} + 0) += {value}",
                number = in(reg) number.as_ptr(),
                value = in(reg) value,
                options(nostack),
            );
        }
    }
}

//! How many group frames a VLAN takes that go to everyone.

use core::sync::atomic::AtomicU64;

use crate::atomic;

/// One value of the array `BUCKETS`, whose key is the VID: what all CPUs have to agree on about a VLAN. 32 bytes.
///
/// Kinds of frames have a bucket each, so that a storm of one kind costs the others nothing.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Buckets {
    /// Requests for addresses that nobody here has.
    pub absent: Bucket,
    /// Requests for somebody here that can't be given to one alone.
    pub known: Bucket,
    /// Every other group frame.
    pub group: Bucket,
    newcomers: Newcomers,
}

/// A token bucket. 8 bytes.
///
/// It holds no number of tokens but the time at which there will be one (the generic cell rate algorithm,
/// ITU-T I.371), so that taking one is one addition, which BPF has without a lock. CPUs that take the last
/// token at the same moment get one each; what they took too many is missing from the next interval, so
/// that the rate is exact.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Bucket {
    /// When the next frame is due, in nanoseconds of the datapath's clock.
    due: AtomicU64,
}

/// Until when a VLAN may have receivers that the tables lack: somebody who is not there has sent a frame, and is heard
/// of within moments.
#[repr(C)]
#[derive(Debug, Default)]
struct Newcomers {
    /// In nanoseconds of the datapath's clock.
    until: AtomicU64,
}

/// What a quiet VLAN has saved up, in nanoseconds of its rate: a network that comes back after a power
/// failure asks for everyone at once.
const BURST: u64 = 50_000_000;

/// For how long a VLAN is not shed after a newcomer was seen.
const PATIENCE: u64 = 5_000_000_000;

const _: () = assert!(size_of::<Buckets>() == 32);

impl Bucket {
    /// Takes a token, of which there are `rate` a second, not 0; whether there was one.
    #[inline(always)]
    pub fn admit(&self, now: u64, rate: u32) -> bool {
        let due = atomic::load(&self.due);
        if due > now {
            return false;
        }
        let interval = 1_000_000_000 / rate as u64;
        let full = now.saturating_sub(BURST);
        if due < full {
            atomic::store(&self.due, full + interval);
        } else {
            atomic::add(&self.due, interval);
        }
        true
    }
}

impl Buckets {
    /// Somebody who is not in the tables has sent a frame.
    #[inline(always)]
    pub fn welcome(&self, now: u64) {
        // Written once a second at the most, because all CPUs share it.
        if atomic::load(&self.newcomers.until) < now + PATIENCE - 1_000_000_000 {
            atomic::store(&self.newcomers.until, now + PATIENCE);
        }
    }

    /// The clock is read only where there has been one.
    #[inline(always)]
    pub fn has_newcomers(&self, now: impl FnOnce() -> u64) -> bool {
        let until = atomic::load(&self.newcomers.until);
        until != 0 && until > now()
    }
}

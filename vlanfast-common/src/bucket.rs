//! What all CPUs have to agree on about a VLAN: token buckets for group frames, and whether new senders were seen.

use core::sync::atomic::AtomicU64;

use crate::atomic;

/// A value of the array `BUCKETS`, whose key is the VID. 32 bytes.
///
/// Each kind of frame has a bucket, so that a storm of one kind costs the others nothing. All CPUs write a value at the
/// same time, so its numbers are atomics.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Buckets {
    /// Requests for addresses that no endpoint has.
    pub absent: Bucket,
    /// Requests for addresses that an endpoint has, but that cannot be steered.
    pub known: Bucket,
    /// All other group frames.
    pub group: Bucket,
    unknown_sender: UnknownSender,
}

/// A token bucket. 8 bytes.
///
/// It does not hold a number of tokens, but the time at which there will be one (the generic cell rate algorithm, ITU-T
/// I.371). So to take a token is one addition, which BPF has without a lock. CPUs that take the last token at the same
/// moment get one each. What they took too many is missing from the next interval, so the rate is exact.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Bucket {
    /// When the next frame is due, in nanoseconds of the datapath's clock.
    due: AtomicU64,
}

/// Until when a VLAN may have endpoints that the tables lack: an unknown sender is one of this host's, and the loader
/// hears of it within moments.
#[repr(C)]
#[derive(Debug, Default)]
struct UnknownSender {
    /// In nanoseconds of the datapath's clock.
    until: AtomicU64,
}

const SECOND: u64 = 1_000_000_000;

/// How much a quiet VLAN has saved up, in nanoseconds of its rate. A network that comes back after a power failure asks
/// for everyone at once.
const BURST: u64 = SECOND / 20;

/// For how long a VLAN is not shed after an unknown sender was seen, in nanoseconds.
const UNKNOWN_SENDER: u64 = 5 * SECOND;

const _: () = assert!(size_of::<Buckets>() == 32);

impl Bucket {
    /// Takes a token, of which there are `rate` a second, which is not 0; whether there was one.
    #[inline(always)]
    pub fn admit(&self, now: u64, rate: u32) -> bool {
        let due = atomic::load(&self.due);
        if due > now {
            return false;
        }
        let interval = SECOND / rate as u64;
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
    /// Notes that a sender that the tables lack has sent a frame.
    #[inline(always)]
    pub fn note_unknown_sender(&self, now: u64) {
        // It is written once a second at the most, because all CPUs share it.
        if atomic::load(&self.unknown_sender.until) < now + UNKNOWN_SENDER - SECOND {
            atomic::store(&self.unknown_sender.until, now + UNKNOWN_SENDER);
        }
    }

    /// Whether an unknown sender was seen of late. The clock is read only if one was ever seen.
    #[inline(always)]
    pub fn has_unknown_sender(&self, now: impl FnOnce() -> u64) -> bool {
        let until = atomic::load(&self.unknown_sender.until);
        until != 0 && until > now()
    }
}

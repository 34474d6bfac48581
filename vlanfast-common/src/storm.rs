//! How many broadcasts for absent hosts a VLAN takes.

use core::sync::atomic::AtomicU64;

use crate::shared;

/// One value of the array `BUCKETS`, whose key is the VID: a token bucket that all CPUs share. 8 bytes.
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

/// What a quiet VLAN has saved up, in nanoseconds of its rate: a network that comes back after a power
/// failure asks for everyone at once.
const BURST: u64 = 50_000_000;

const _: () = assert!(size_of::<Bucket>() == 8);

impl Bucket {
    /// Takes a token, of which there are `rate` a second, not 0; whether there was one.
    #[inline(always)]
    pub fn admit(&self, now: u64, rate: u32) -> bool {
        let due = shared::load(&self.due);
        if due > now {
            return false;
        }
        let interval = 1_000_000_000 / rate as u64;
        let full = now.saturating_sub(BURST);
        if due < full {
            shared::store(&self.due, full + interval);
        } else {
            shared::add(&self.due, interval);
        }
        true
    }
}

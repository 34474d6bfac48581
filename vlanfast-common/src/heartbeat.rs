//! Whether the heartbeat is ahead of the clock, without reading the clock for every frame.

use core::sync::atomic::AtomicU64;

use crate::atomic;

/// The last answer to the question whether the heartbeat is ahead of the clock.
///
/// The clock of the datapath moves with the kernel's tick, and to read the number of the tick costs next to nothing. So an
/// answer is good for the rest of its tick, and for the same heartbeat. The sum of the two stands for both, because
/// heartbeats only grow, until they end with 0.
#[derive(Debug, Default)]
pub struct HeartbeatCache {
    /// The sum of heartbeat and tick when the heartbeat was ahead last.
    fresh: AtomicU64,
}

impl HeartbeatCache {
    /// A cache without an answer.
    pub const fn new() -> Self {
        Self {
            fresh: AtomicU64::new(0),
        }
    }

    /// Whether `heartbeat` is ahead of the clock, which is read once in a `tick` as long as it is.
    #[inline(always)]
    pub fn is_fresh(&self, heartbeat: u64, tick: u64, clock: impl FnOnce() -> u64) -> bool {
        let sum = heartbeat.wrapping_add(tick);
        if atomic::load(&self.fresh) == sum {
            return true;
        }
        let is_ahead = heartbeat > clock();
        if is_ahead {
            atomic::store(&self.fresh, sum);
        }
        is_ahead
    }
}

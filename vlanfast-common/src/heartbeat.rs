//! Whether the heartbeat is ahead of the clock, without reading the clock for every frame.

use core::sync::atomic::AtomicU64;

use crate::atomic;

/// What the clock said last.
///
/// The clock of the datapath moves with the kernel's tick, and to read the number of the tick costs next to
/// nothing. So one answer is good for the rest of its tick, and for that heartbeat alone: their sum stands for
/// both, because heartbeats only grow, until the end in order, which is 0.
#[derive(Debug, Default)]
pub struct HeartbeatCache {
    /// The sum when the heartbeat was ahead last.
    felt: AtomicU64,
}

impl HeartbeatCache {
    pub const fn new() -> Self {
        Self {
            felt: AtomicU64::new(0),
        }
    }

    /// Whether `heartbeat` is ahead of the clock, which is asked once in a `tick` where that is so.
    #[inline(always)]
    pub fn is_fresh(&self, heartbeat: u64, tick: u64, clock: impl FnOnce() -> u64) -> bool {
        let sum = heartbeat.wrapping_add(tick);
        if atomic::load(&self.felt) == sum {
            return true;
        }
        let is_ahead = heartbeat > clock();
        if is_ahead {
            atomic::store(&self.felt, sum);
        }
        is_ahead
    }
}

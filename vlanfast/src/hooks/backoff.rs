//! Decides when to put back a program that somebody took off its hook. The pauses grow, so that two tools never fight
//! over a hook for long.

use std::time::{Duration, Instant};

/// The pause before the first repair, the second and so on. After the last one vlanfast gives up: another tool insists
/// on the hook.
const PAUSES: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_secs(2),
    Duration::from_secs(8),
    Duration::from_secs(30),
    Duration::from_secs(120),
];
/// After a repair has held for this long, the pauses start again from the first.
const CALM: Duration = Duration::from_secs(600);

/// The backoff of one hook so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RepairBackoff {
    tried: usize,
    last: Option<Instant>,
}

impl RepairBackoff {
    /// Whether it is time to repair the hook.
    pub fn is_due(&self, now: Instant) -> bool {
        let pause = PAUSES.get(self.tried);
        pause.is_some_and(|pause| self.last.is_none_or(|last| now >= last + *pause))
    }

    /// Whether no further repair follows until somebody attaches again.
    pub const fn has_given_up(&self) -> bool {
        self.tried >= PAUSES.len()
    }

    /// Records that a repair was tried, whether it succeeded or not.
    pub const fn record(&mut self, now: Instant) {
        self.tried += 1;
        self.last = Some(now);
    }

    /// Records that our program is on the hook.
    pub fn record_attached(&mut self, now: Instant) {
        if self.last.is_some_and(|last| now >= last + CALM) {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_grows_until_it_gives_up() {
        let start = Instant::now();
        let mut backoff = RepairBackoff::default();
        let mut at = vec![];
        for second in 0..1_000 {
            let now = start + Duration::from_secs(second);
            // Somebody takes the program off again at once.
            if backoff.is_due(now) {
                at.push(second);
                backoff.record(now);
            }
        }
        assert_eq!(at, [0, 2, 10, 40, 160]);
        assert!(backoff.has_given_up());
    }

    #[test]
    fn a_repair_that_held_for_long_resets_the_pauses() {
        let start = Instant::now();
        let mut backoff = RepairBackoff::default();
        backoff.record(start);
        backoff.record(start);
        backoff.record_attached(start + CALM - Duration::from_secs(1));
        assert_ne!(backoff, RepairBackoff::default());
        backoff.record_attached(start + CALM);
        assert_eq!(backoff, RepairBackoff::default());
        assert!(backoff.is_due(start + CALM));
    }
}

//! When a hook that somebody took us off is to be repaired. Pure.

use std::time::{Duration, Instant};

/// Before the first repair, the second and so on. After the last, two tools fight over the hook, and we
/// are the one that gives in.
const PAUSES: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_secs(2),
    Duration::from_secs(8),
    Duration::from_secs(30),
    Duration::from_secs(120),
];
/// A repair that has held for so long is history.
const CALM: Duration = Duration::from_secs(600);

/// The repairs of one hook.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Repairs {
    tried: usize,
    last: Option<Instant>,
}

impl Repairs {
    /// Whether it is time for one.
    pub fn are_due(&self, now: Instant) -> bool {
        let pause = PAUSES.get(self.tried);
        pause.is_some_and(|pause| self.last.is_none_or(|last| now >= last + *pause))
    }

    /// Whether no other will come until somebody attaches anew.
    pub const fn are_given_up(&self) -> bool {
        self.tried >= PAUSES.len()
    }

    /// One was tried, whatever came of it.
    pub const fn tried(&mut self, now: Instant) {
        self.tried += 1;
        self.last = Some(now);
    }

    /// The hook is as it should be.
    pub fn is_fine(&mut self, now: Instant) {
        if self.last.is_some_and(|last| now >= last + CALM) {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_grows_and_ends_in_peace() {
        let start = Instant::now();
        let mut repairs = Repairs::default();
        let mut at = vec![];
        for second in 0..1_000 {
            let now = start + Duration::from_secs(second);
            // Somebody takes it off at once, each time.
            if repairs.are_due(now) {
                at.push(second);
                repairs.tried(now);
            }
        }
        assert_eq!(at, [0, 2, 10, 40, 160]);
        assert!(repairs.are_given_up());
    }

    #[test]
    fn what_has_held_for_long_is_forgotten() {
        let start = Instant::now();
        let mut repairs = Repairs::default();
        repairs.tried(start);
        repairs.tried(start);
        repairs.is_fine(start + CALM - Duration::from_secs(1));
        assert_ne!(repairs, Repairs::default());
        repairs.is_fine(start + CALM);
        assert_eq!(repairs, Repairs::default());
        assert!(repairs.are_due(start + CALM));
    }
}

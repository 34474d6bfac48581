//! Backoff for sources that change continuously. A change from a quiet source is read at once. A source that keeps
//! changing is read after a growing pause, so that it does not delay the others or make their tables stale.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use crate::state::snapshot::{Ifindex, Nsid};

/// The shortest and the longest pause after a read.
const SHORTEST: Duration = Duration::from_millis(5);
const LONGEST: Duration = Duration::from_secs(1);
/// A source is quiet if it has not changed for this long after its pause (or for another pause, if that is longer).
/// This is well beyond the duration of a read, during which even a noisy source seems quiet.
const QUIET: Duration = Duration::from_millis(100);

/// A source of changes: another namespace as a whole, because its devices belong to one container, or a single device
/// of our own namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChangeSource(Nsid, Option<Ifindex>);

impl ChangeSource {
    pub const fn of(nsid: Nsid, ifindex: Ifindex) -> Self {
        match nsid {
            Nsid::Own => Self(nsid, Some(ifindex)),
            Nsid::Other(_) => Self(nsid, None),
        }
    }
}

/// The sources that were read lately.
#[derive(Debug, Default)]
pub struct Backoff(BTreeMap<ChangeSource, Pause>);

#[derive(Clone, Copy, Debug)]
struct Pause {
    /// The earliest time of the next read.
    next: Instant,
    pause: Duration,
}

impl Pause {
    /// Whether the source has been quiet since.
    fn is_over(&self, now: Instant) -> bool {
        now >= self.next + self.pause.max(QUIET)
    }
}

impl Backoff {
    /// When the changes of a source may be read, or `None` for now.
    pub fn waits(&self, source: ChangeSource, now: Instant) -> Option<Instant> {
        let turn = self.0.get(&source)?;
        (turn.next > now).then_some(turn.next)
    }

    /// The current pause of a source. Of two that may be read, the one with the shorter pause is read first.
    pub fn pause(&self, source: ChangeSource) -> Duration {
        self.0
            .get(&source)
            .map_or(Duration::ZERO, |turn| turn.pause)
    }

    /// Records that the changes of a source were read.
    pub fn record(&mut self, source: ChangeSource, now: Instant) {
        let pause = match self.0.get(&source) {
            Some(turn) if !turn.is_over(now) => (2 * turn.pause).min(LONGEST),
            // The pause shrinks as fast as it has grown.
            Some(turn) => (turn.pause / 2).max(SHORTEST),
            None => SHORTEST,
        };
        let next = now + pause;
        self.0.insert(source, Pause { next, pause });
    }

    /// Forgets sources that have been quiet for long.
    pub fn settle(&mut self, now: Instant) {
        self.0
            .retain(|_, turn| now < turn.next + 4 * turn.pause.max(QUIET));
    }

    /// Forgets a namespace whose id was released.
    pub fn forget(&mut self, nsid: Nsid) {
        self.0.retain(|source, _| source.0 != nsid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOISY: ChangeSource = ChangeSource(Nsid::Other(3), None);
    const OTHER: ChangeSource = ChangeSource(Nsid::Other(4), None);

    const fn millis(number: u64) -> Duration {
        Duration::from_millis(number)
    }

    /// Reads the source whenever its backoff allows it, and returns after how many milliseconds each read happened.
    fn reads(backoff: &mut Backoff, start: Instant, for_millis: u64) -> Vec<u64> {
        let mut at = vec![];
        for ms in 0..for_millis {
            let now = start + millis(ms);
            backoff.settle(now);
            if backoff.waits(NOISY, now).is_none() {
                backoff.record(NOISY, now);
                at.push(ms);
            }
        }
        at
    }

    #[test]
    fn the_first_change_is_read_at_once_and_continuous_changes_ever_more_rarely() {
        let (mut backoff, start) = (Backoff::default(), Instant::now());
        let at = reads(&mut backoff, start, 5_000);
        assert_eq!(
            at,
            [0, 5, 15, 35, 75, 155, 315, 635, 1275, 2275, 3275, 4275]
        );
        assert_eq!(backoff.pause(NOISY), LONGEST);
        let now = start + millis(4_300);
        assert_eq!(backoff.waits(NOISY, now), Some(start + millis(5_275)));
        assert_eq!(backoff.waits(OTHER, now), None);
    }

    #[test]
    fn a_source_that_becomes_quiet_is_read_at_once_again() {
        let (mut backoff, start) = (Backoff::default(), Instant::now());
        reads(&mut backoff, start, 700);
        let mut now = start + millis(635 + 640 + 640);
        for expected in [320, 160, 80] {
            assert_eq!(backoff.waits(NOISY, now), None);
            backoff.record(NOISY, now);
            assert_eq!(backoff.pause(NOISY), millis(expected));
            now += millis(3 * expected) + QUIET;
        }
        backoff.settle(now + 10 * LONGEST);
        assert!(backoff.0.is_empty());
    }

    #[test]
    fn the_duration_of_a_read_does_not_count_as_quiet() {
        let (mut backoff, mut now) = (Backoff::default(), Instant::now());
        for expected in [5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000] {
            // This is the time to settle and to read.
            now += millis(60);
            backoff.settle(now);
            backoff.record(NOISY, now);
            assert_eq!(backoff.pause(NOISY), millis(expected));
            now += millis(expected);
        }
    }

    #[test]
    fn a_source_that_changes_rarely_never_waits() {
        let (mut backoff, start) = (Backoff::default(), Instant::now());
        for second in 0..10 {
            let now = start + second * LONGEST;
            assert_eq!(backoff.waits(NOISY, now), None);
            backoff.record(NOISY, now);
            assert_eq!(backoff.pause(NOISY), SHORTEST);
        }
    }

    #[test]
    fn devices_of_our_own_namespace_are_separate_sources_and_a_released_id_is_forgotten() {
        let (mut backoff, now) = (Backoff::default(), Instant::now());
        let of = |nsid, index| ChangeSource::of(nsid, Ifindex(index));
        backoff.record(of(Nsid::Own, 1), now);
        backoff.record(of(Nsid::Other(3), 1), now);
        assert!(backoff.waits(of(Nsid::Own, 1), now).is_some());
        assert_eq!(backoff.waits(of(Nsid::Own, 2), now), None);
        assert!(backoff.waits(of(Nsid::Other(3), 2), now).is_some());
        backoff.forget(Nsid::Other(3));
        assert_eq!(backoff.waits(of(Nsid::Other(3), 2), now), None);
        assert!(backoff.waits(of(Nsid::Own, 1), now).is_some());
    }
}

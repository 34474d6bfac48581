//! How soon a change is read. Whoever has been quiet is read at once; whoever changes again and again waits for a
//! pause that grows, so that the others are read meanwhile, and the tables count as true for them.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use crate::state::snapshot::{Ifindex, Nsid};

/// The pause after a read, and what it grows to.
const SHORTEST: Duration = Duration::from_millis(5);
const LONGEST: Duration = Duration::from_secs(1);
/// Without a change for so long after its pause, or for another pause, it is quiet: well beyond the time that a read
/// takes, or whoever never stops would seem to rest between two.
const QUIET: Duration = Duration::from_millis(100);

/// Who makes the changes: another namespace as a whole, since its devices are one container's. Our own has those of
/// everybody, and goes by device.
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

/// Who was read lately.
#[derive(Debug, Default)]
pub struct Backoff(BTreeMap<ChangeSource, Pause>);

#[derive(Clone, Copy, Debug)]
struct Pause {
    /// The next read, at the earliest.
    next: Instant,
    pause: Duration,
}

impl Pause {
    /// Nothing has changed for long since.
    fn is_over(&self, now: Instant) -> bool {
        now >= self.next + self.pause.max(QUIET)
    }
}

impl Backoff {
    /// When its changes may be read, where that is not now.
    pub fn waits(&self, source: ChangeSource, now: Instant) -> Option<Instant> {
        let turn = self.0.get(&source)?;
        (turn.next > now).then_some(turn.next)
    }

    /// How noisy it has been: of two who may be read, the quieter goes first.
    pub fn pause(&self, source: ChangeSource) -> Duration {
        self.0
            .get(&source)
            .map_or(Duration::ZERO, |turn| turn.pause)
    }

    /// Its changes were read just now.
    pub fn record(&mut self, source: ChangeSource, now: Instant) {
        let pause = match self.0.get(&source) {
            Some(turn) if !turn.is_over(now) => (2 * turn.pause).min(LONGEST),
            // It falls back as fast as it has grown.
            Some(turn) => (turn.pause / 2).max(SHORTEST),
            None => SHORTEST,
        };
        let next = now + pause;
        self.0.insert(source, Pause { next, pause });
    }

    /// Forgets who has been quiet for long.
    pub fn settle(&mut self, now: Instant) {
        self.0
            .retain(|_, turn| now < turn.next + 4 * turn.pause.max(QUIET));
    }

    /// The id stands for another namespace from now on, or for none.
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

    /// Reads it whenever it may be, for some time; after how many milliseconds.
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
    fn the_first_change_is_read_at_once_and_those_of_who_goes_on_ever_more_rarely() {
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
    fn whoever_is_quiet_is_read_at_once_again() {
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
    fn that_a_read_takes_its_time_is_no_rest() {
        let (mut backoff, mut now) = (Backoff::default(), Instant::now());
        for expected in [5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000] {
            // The settling, and the read.
            now += millis(60);
            backoff.settle(now);
            backoff.record(NOISY, now);
            assert_eq!(backoff.pause(NOISY), millis(expected));
            now += millis(expected);
        }
    }

    #[test]
    fn whoever_changes_now_and_then_never_waits() {
        let (mut backoff, start) = (Backoff::default(), Instant::now());
        for second in 0..10 {
            let now = start + second * LONGEST;
            assert_eq!(backoff.waits(NOISY, now), None);
            backoff.record(NOISY, now);
            assert_eq!(backoff.pause(NOISY), SHORTEST);
        }
    }

    #[test]
    fn our_own_namespace_goes_by_device_and_an_id_that_is_given_anew_is_nobodys() {
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

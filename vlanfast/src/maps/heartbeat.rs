//! The heartbeat: for as long as it is ahead of the clock, the programs trust the tables. And the
//! supervisor's watchdog, which is fed by it.

use std::{cell::Cell, convert::Infallible, rc::Rc, time::Duration};

use tokio::time::{Instant, sleep};

use crate::{maps::tables::Maps, notify::Supervisor};

/// Between two beats, and how long one is good for: past it, the programs stop trusting the tables.
const BEAT: Duration = Duration::from_secs(1);
pub const VALIDITY: Duration = Duration::from_secs(3);
/// However little patience the supervisor has.
const SHORTEST: Duration = Duration::from_millis(20);

/// How fresh the tables are, as the reconciler knows it. Clones share what they know.
#[derive(Clone, Debug, Default)]
pub struct Freshness(Rc<Cell<State>>);

#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// Since when they may be behind what is so; `None` where they are not, as far as is known.
    stale_since: Option<Instant>,
    /// They are fresh or not, but mean nothing: the programs can't see which VLAN a frame is on.
    is_withheld: bool,
}

/// What the heartbeat makes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// The tables are to be trusted.
    InSync,
    /// They are not to be trusted, and the process is in order: a restart would mend nothing.
    Withheld,
    /// Nobody knows what they should be: the sources do not answer.
    Stale,
}

impl Freshness {
    /// Something has changed, or may have: from now on the tables may be behind.
    pub fn mark_stale(&self) {
        self.change(|state| {
            state.stale_since.get_or_insert_with(Instant::now);
        });
    }

    /// The tables are as the sources have shown them.
    pub fn mark_fresh(&self) {
        self.change(|state| state.stale_since = None);
    }

    /// Keeps the programs from trusting the tables, however fresh they are, or no longer.
    pub fn withhold(&self, is_withheld: bool) {
        self.change(|state| state.is_withheld = is_withheld);
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.0.get();
        change(&mut state);
        self.0.set(state);
    }

    fn health(&self, now: Instant) -> Health {
        let state = self.0.get();
        let is_stale = |since| now.saturating_duration_since(since) >= VALIDITY;
        match state.stale_since.is_some_and(is_stale) {
            true => Health::Stale,
            false if state.is_withheld => Health::Withheld,
            false => Health::InSync,
        }
    }
}

impl Health {
    /// For the supervisor, who shows it.
    pub const fn words(self) -> &'static str {
        match self {
            Self::InSync => "attached, tables in sync",
            Self::Withheld => "attached, but the device hides VLAN tags: every frame is passed",
            Self::Stale => "attached, but the tables can't be kept in sync: every frame is passed",
        }
    }
}

/// Moves the heartbeat for as long as the tables are to be trusted; past it, the programs pass every frame.
///
/// The supervisor's watchdog is fed by each beat, and also where beats are withheld on purpose. Where the
/// tables are stale it is not: to start anew is all that is left then.
pub async fn heartbeat(
    maps: &mut Maps,
    freshness: Freshness,
    supervisor: &Supervisor,
) -> anyhow::Result<Infallible> {
    let period = period(supervisor.watchdog());
    let (mut last, mut said) = (Instant::now(), Health::InSync);
    loop {
        sleep(period).await;
        let now = Instant::now();
        let rested = now.saturating_duration_since(last) < VALIDITY;
        last = now;
        // After a pause of the whole process nobody knows yet what has changed meanwhile.
        if !rested {
            continue;
        }
        let health = freshness.health(now);
        if health == Health::InSync {
            maps.beat(VALIDITY)?;
        }
        if health != Health::Stale {
            supervisor.feed();
        }
        if health != said {
            supervisor.status(health.words());
            said = health;
        }
    }
}

/// A supervisor is to be told twice in the time that it waits (sd_watchdog_enabled(3)).
fn period(watchdog: Option<Duration>) -> Duration {
    let half = watchdog.map_or(BEAT, |patience| patience / 2);
    half.clamp(SHORTEST, BEAT)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is known now, some time from now.
    fn later(freshness: &Freshness, millis: u64) -> Health {
        freshness.health(Instant::now() + Duration::from_millis(millis))
    }

    #[test]
    fn tables_are_trusted_until_a_doubt_is_as_old_as_a_beat_is_good_for() {
        let freshness = Freshness::default();
        assert_eq!(later(&freshness, 1_000_000), Health::InSync);
        freshness.mark_stale();
        assert_eq!(later(&freshness, 1_000), Health::InSync);
        assert_eq!(later(&freshness, 3_001), Health::Stale);
        freshness.mark_fresh();
        assert_eq!(later(&freshness, 3_001), Health::InSync);
    }

    #[test]
    fn a_second_doubt_does_not_renew_the_first() {
        let freshness = Freshness::default();
        freshness.mark_stale();
        let since = freshness.0.get().stale_since;
        assert!(since.is_some());
        freshness.mark_stale();
        assert_eq!(freshness.0.get().stale_since, since);
    }

    #[test]
    fn what_is_withheld_is_never_trusted_and_is_no_illness_by_itself() {
        let (freshness, other) = (Freshness::default(), Freshness::default());
        freshness.withhold(true);
        assert_eq!(later(&freshness, 1_000_000), Health::Withheld);
        // A change on its way does not have the programs trust them for a moment.
        freshness.clone().mark_stale();
        assert_eq!(later(&freshness, 0), Health::Withheld);
        assert_eq!(later(&freshness, 3_001), Health::Stale);
        freshness.mark_fresh();
        assert_eq!(later(&freshness, 3_001), Health::Withheld);
        freshness.withhold(false);
        assert_eq!(later(&freshness, 3_001), Health::InSync);
        assert_eq!(later(&other, 0), Health::InSync);
    }

    #[test]
    fn it_beats_every_second_or_twice_in_the_supervisors_patience() {
        let seconds = Duration::from_secs;
        assert_eq!(period(None), seconds(1));
        assert_eq!(period(Some(seconds(10))), seconds(1));
        assert_eq!(period(Some(seconds(1))), Duration::from_millis(500));
        assert_eq!(period(Some(Duration::from_micros(1))), SHORTEST);
    }
}

//! The heartbeat: a deadline in `SETTINGS` that is moved forward every second. The programs trust the tables until it
//! has passed. Each beat also feeds the supervisor's watchdog.

use std::{cell::Cell, convert::Infallible, rc::Rc, time::Duration};

use tokio::time::{Instant, sleep};

use crate::{maps::tables::TableMaps, notify::Supervisor};

/// The time between two beats.
const BEAT: Duration = Duration::from_secs(1);
/// How long a beat is valid. After that the programs stop trusting the tables.
pub const VALIDITY: Duration = Duration::from_secs(3);
/// The shortest time between two beats, whatever the supervisor's watchdog asks for.
const SHORTEST: Duration = Duration::from_millis(20);

/// Whether the tables are up to date, as far as the reconciler knows. Clones share one state.
#[derive(Clone, Debug, Default)]
pub struct Freshness(Rc<Cell<State>>);

#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// Since when the tables may be out of date; `None` if they are up to date as far as is known.
    stale_since: Option<Instant>,
    /// The tables must not be used, fresh or not: the programs can't see which VLAN a frame is on.
    is_withheld: bool,
}

/// Whether the heartbeat beats, and why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// The tables can be trusted.
    InSync,
    /// The tables must not be used, but the process is healthy: a restart would not help.
    Withheld,
    /// The tables are out of date, because the sources do not answer.
    Stale,
}

impl Freshness {
    /// From now on the tables may be out of date: something has changed, or may have changed.
    pub fn mark_stale(&self) {
        self.change(|state| {
            state.stale_since.get_or_insert_with(Instant::now);
        });
    }

    /// The tables are up to date with the sources.
    pub fn mark_fresh(&self) {
        self.change(|state| state.stale_since = None);
    }

    /// Keeps the programs from using the tables, however fresh these are, or lets them use the tables again.
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
    /// The status line for the supervisor.
    pub const fn words(self) -> &'static str {
        match self {
            Self::InSync => "attached, tables in sync",
            Self::Withheld => "attached, but the device hides VLAN tags: every frame is passed",
            Self::Stale => "attached, but the tables can't be kept in sync: every frame is passed",
        }
    }
}

/// Moves the heartbeat forward as long as the tables can be trusted. Without it the programs pass every frame.
///
/// Each beat feeds the supervisor's watchdog, and so does a beat that is withheld on purpose. If the tables are stale
/// the watchdog is not fed, so that the supervisor restarts the process.
pub async fn heartbeat(
    maps: &mut TableMaps,
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
        // The whole process was stopped for a while, and it is not known yet what has changed in that time.
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

/// The time between two beats. sd_watchdog_enabled(3) asks for a notification every half of the watchdog's time.
fn period(watchdog: Option<Duration>) -> Duration {
    let half = watchdog.map_or(BEAT, |patience| patience / 2);
    half.clamp(SHORTEST, BEAT)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The health at a later time, if nothing changes until then.
    fn later(freshness: &Freshness, millis: u64) -> Health {
        freshness.health(Instant::now() + Duration::from_millis(millis))
    }

    #[test]
    fn tables_are_trusted_until_they_were_stale_for_as_long_as_a_beat_is_valid() {
        let freshness = Freshness::default();
        assert_eq!(later(&freshness, 1_000_000), Health::InSync);
        freshness.mark_stale();
        assert_eq!(later(&freshness, 1_000), Health::InSync);
        assert_eq!(later(&freshness, 3_001), Health::Stale);
        freshness.mark_fresh();
        assert_eq!(later(&freshness, 3_001), Health::InSync);
    }

    #[test]
    fn marking_stale_twice_keeps_the_first_time() {
        let freshness = Freshness::default();
        freshness.mark_stale();
        let since = freshness.0.get().stale_since;
        assert!(since.is_some());
        freshness.mark_stale();
        assert_eq!(freshness.0.get().stale_since, since);
    }

    #[test]
    fn withheld_tables_are_never_trusted_and_need_no_restart() {
        let (freshness, other) = (Freshness::default(), Freshness::default());
        freshness.withhold(true);
        assert_eq!(later(&freshness, 1_000_000), Health::Withheld);
        // A change does not make the programs trust the tables for a moment.
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
    fn it_beats_every_second_or_twice_in_the_watchdogs_time() {
        let seconds = Duration::from_secs;
        assert_eq!(period(None), seconds(1));
        assert_eq!(period(Some(seconds(10))), seconds(1));
        assert_eq!(period(Some(seconds(1))), Duration::from_millis(500));
        assert_eq!(period(Some(Duration::from_micros(1))), SHORTEST);
    }
}

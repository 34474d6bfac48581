//! Schedules the repetition of incomplete reads, with exponential backoff.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::pending,
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

use crate::state::snapshot::Nsid;

/// The first and the longest pause.
const SHORT: Duration = Duration::from_millis(50);
const LONG: Duration = Duration::from_secs(5);

/// The namespaces, or their list, that could not be read completely.
#[derive(Debug, Default)]
pub struct Retry {
    /// The value says whether the missing part matters to others than the namespace itself.
    namespaces: BTreeMap<Nsid, bool>,
    list: bool,
    /// When to read again, and the current pause.
    due: Option<(Instant, Duration)>,
}

impl Retry {
    /// Whether nothing is missing.
    pub fn is_idle(&self) -> bool {
        self.namespaces.is_empty() && !self.list
    }

    /// Whether nothing is missing that matters to others.
    pub fn is_whole(&self) -> bool {
        !self.list && !self.namespaces.values().any(|matters| *matters)
    }

    /// Records that something of a namespace may be missing, and whether that matters to others. Returns whether this
    /// is new.
    pub fn want(&mut self, nsid: Nsid, matters: bool) -> bool {
        let known = self.namespaces.insert(nsid, matters);
        if known == Some(true) {
            self.namespaces.insert(nsid, true);
        }
        known.is_none()
    }

    /// Records that a namespace was read completely or is gone.
    pub fn done(&mut self, nsid: Nsid) {
        self.namespaces.remove(&nsid);
    }

    pub const fn want_list(&mut self, wanted: bool) {
        self.list = wanted;
    }

    /// Sets the time of the next read at the end of a round.
    pub fn settle(&mut self) {
        self.due = match self.due {
            _ if self.is_idle() => None,
            Some((at, pause)) if at > Instant::now() => Some((at, pause)),
            Some((_, pause)) => Some(after((2 * pause).min(LONG))),
            None => Some(after(SHORT)),
        };
    }

    /// Waits for the time of the next read.
    pub async fn due(&self) {
        match self.due {
            Some((at, _)) => sleep_until(at).await,
            None => pending().await,
        }
    }

    /// Returns the namespaces to read, and whether to read their list.
    pub fn take(&self) -> (BTreeSet<Nsid>, bool) {
        (self.namespaces.keys().copied().collect(), self.list)
    }
}

fn after(pause: Duration) -> (Instant, Duration) {
    (Instant::now() + pause, pause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_pause_grows_until_nothing_is_missing() {
        let mut retry = Retry::default();
        assert!(retry.want(Nsid::Other(3), true) && !retry.want(Nsid::Other(3), false));
        assert!(!retry.is_whole());
        let mut pauses = vec![];
        for _ in 0..9 {
            let start = Instant::now();
            retry.settle();
            // Another round before its time changes nothing.
            retry.settle();
            retry.due().await;
            pauses.push(start.elapsed().as_millis() / 10 * 10);
            assert_eq!(retry.take().0, BTreeSet::from([Nsid::Other(3)]));
        }
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        retry.done(Nsid::Other(3));
        retry.settle();
        assert!(retry.is_idle());
        retry.want(Nsid::Other(3), false);
        assert!(!retry.is_idle() && retry.is_whole());
        retry.done(Nsid::Other(3));
        retry.want_list(true);
        assert!(!retry.is_idle() && !retry.is_whole());
        let start = Instant::now();
        retry.settle();
        retry.due().await;
        assert!(start.elapsed() < 2 * SHORT);
    }
}

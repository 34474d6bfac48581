//! Measures in rounds, and makes one figure of them.

use std::time::Instant;

use anyhow::{Result, ensure};

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    pub quick: bool,
    rounds: usize,
    native: bool,
}

/// Rounds that fill caches and pools, and are not counted.
const WARM_UP: usize = 3;

/// Frames of a round, in bursts of what a NAPI poll takes.
pub const FRAMES: u32 = 1024;
pub const BURST: u32 = 64;

impl Effort {
    pub const fn new(quick: bool, native: bool) -> Self {
        let rounds = if quick { 7 } else { 25 };
        Self {
            quick,
            rounds,
            native,
        }
    }

    /// How many rounds there are, with those that are not counted.
    pub const fn rounds(self) -> u32 {
        (WARM_UP + self.rounds) as u32
    }

    /// Four times as many rounds, for what is short and differs much from one to the next.
    pub const fn more(self) -> Self {
        Self {
            rounds: self.rounds * 4,
            ..self
        }
    }

    /// A third of the rounds, for what is long; at least one that is neither the cheapest nor the dearest.
    pub fn less(self) -> Self {
        Self {
            rounds: (self.rounds / 3).max(3),
            ..self
        }
    }

    /// The nanoseconds that `round` takes, which under `-icount` are instructions, for each of its `units`.
    ///
    /// The mean over the rounds, because what the kernel puts off in one (freeing by RCU) it does in
    /// another; but without the cheapest and the dearest tenth, which a timer or a worker of something
    /// else has met. Natively the least: what else a real machine does can only add to a round.
    pub fn cost(&self, units: u32, mut round: impl FnMut() -> Result<()>) -> Result<f64> {
        // On a machine that others use, a thread that runs last would take forever.
        let _last = (!self.native).then(Last::enter).transpose()?;
        for _ in 0..WARM_UP {
            round()?;
        }
        let mut costs = Vec::with_capacity(self.rounds);
        for _ in 0..self.rounds {
            let start = Instant::now();
            round()?;
            costs.push(start.elapsed().as_nanos() as f64 / f64::from(units));
        }
        costs.sort_by(f64::total_cmp);
        let tenth = self.rounds.div_ceil(10);
        let counted = match self.native {
            true => &costs[..1],
            false => &costs[tenth..self.rounds - tenth],
        };
        Ok(counted.iter().sum::<f64>() / counted.len() as f64)
    }
}

/// While this lives, everything else runs first: whatever the kernel hands to a worker for our frames, and
/// whoever reads them, is done before we go on, and so within the round that caused it. For the one CPU of
/// the lab.
///
/// A child process would inherit it, so none is started in a round.
struct Last(());

impl Last {
    fn enter() -> Result<Self> {
        policy(libc::SCHED_IDLE)?;
        Ok(Self(()))
    }
}

impl Drop for Last {
    fn drop(&mut self) {
        policy(libc::SCHED_OTHER).expect("one may leave SCHED_IDLE");
    }
}

fn policy(policy: i32) -> Result<()> {
    // SAFETY: all zeroes is a valid value.
    let parameters: libc::sched_param = unsafe { std::mem::zeroed() };
    // SAFETY: a pointer to a value that lives as long as the call.
    let result = unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) };
    ensure!(
        result == 0,
        "failed to change the priority: {}",
        std::io::Error::last_os_error()
    );
    Ok(())
}

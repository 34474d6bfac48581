//! Rounds, and what becomes of them.

use std::time::Instant;

use anyhow::{Context, Result, ensure};

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    pub quick: bool,
    rounds: usize,
    native: bool,
}

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

    /// How many there are, with the one that is not counted.
    pub const fn rounds(self) -> u32 {
        self.rounds as u32 + 1
    }

    /// A third of the rounds, for what is long.
    pub const fn less(self) -> Self {
        Self {
            rounds: self.rounds / 3,
            ..self
        }
    }

    /// The median over the rounds (natively the least) of the nanoseconds that `round` takes, which under `-icount` are
    /// instructions, for each of its `units`. The first round fills caches, and pools, and is not counted.
    pub fn cost(&self, units: u32, mut round: impl FnMut() -> Result<()>) -> Result<f64> {
        round()?;
        let mut costs = Vec::with_capacity(self.rounds);
        for _ in 0..self.rounds {
            let start = Instant::now();
            round()?;
            costs.push(start.elapsed().as_nanos() as f64 / f64::from(units));
        }
        costs.sort_by(f64::total_cmp);
        // What else a real machine does can only add to a round.
        let place = if self.native { 0 } else { self.rounds / 2 };
        costs
            .get(place)
            .copied()
            .context("there is at least one round")
    }
}

/// Lets everything else run first: whatever the kernel hands to a worker for our frames is done before
/// we go on, and so within the round that caused it. For the one CPU of the lab.
pub fn run_last() -> Result<()> {
    policy(libc::SCHED_IDLE)
}

/// Competes for the CPU as everybody does, until this is dropped.
pub struct Priority {
    before: i32,
}

impl Priority {
    pub fn normal() -> Result<Self> {
        // SAFETY: a system call without pointers.
        let before = unsafe { libc::sched_getscheduler(0) };
        policy(libc::SCHED_OTHER)?;
        Ok(Self { before })
    }
}

impl Drop for Priority {
    fn drop(&mut self) {
        policy(self.before).expect("what was allowed once is allowed again");
    }
}

fn policy(policy: i32) -> Result<()> {
    // SAFETY: all zeroes is a valid value.
    let parameters: libc::sched_param = unsafe { std::mem::zeroed() };
    // Our children are none of this.
    let policy = policy | libc::SCHED_RESET_ON_FORK;
    // SAFETY: a pointer to a value that lives as long as the call.
    let result = unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) };
    ensure!(
        result == 0,
        "failed to change the priority: {}",
        std::io::Error::last_os_error()
    );
    Ok(())
}

//! On which CPU a test's traffic is sent.

use std::{panic::resume_unwind, thread};

use anyhow::{Context, Result};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

/// Keeps this thread, and what it starts from now on, on one of the CPUs that it may use.
pub fn pin(number: usize) -> Result<()> {
    let this = Pid::from_raw(0);
    let allowed = sched_getaffinity(this)?;
    let mut cpus = (0..CpuSet::count()).filter(|&cpu| allowed.is_set(cpu) == Ok(true));
    let count = cpus.clone().count();
    let mut one = CpuSet::new();
    one.set(cpus.nth(number % count).context("a CPU")?)?;
    Ok(sched_setaffinity(this, &one)?)
}

/// Does something on one CPU. A packet from device to device on one machine waits in the queue of the CPU
/// that sends it (`netif_rx`), so a sender who changes CPUs overtakes himself, whatever the devices; where
/// order is tested, it must be ours alone.
pub fn on_one<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let pinned = || {
        pin(0)?;
        work()
    };
    thread::scope(|scope| {
        let done = scope.spawn(pinned).join();
        done.unwrap_or_else(|panic| resume_unwind(panic))
    })
}

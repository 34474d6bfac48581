//! Chooses the CPU on which a test's traffic is sent.

use std::{panic::resume_unwind, thread};

use anyhow::{Context, Result};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

/// Pins this thread, and the threads that it starts from now on, to one of its allowed CPUs.
pub fn pin(number: usize) -> Result<()> {
    let this = Pid::from_raw(0);
    let allowed = sched_getaffinity(this)?;
    let mut cpus = (0..CpuSet::count()).filter(|&cpu| allowed.is_set(cpu) == Ok(true));
    let count = cpus.clone().count();
    let mut one = CpuSet::new();
    one.set(cpus.nth(number % count).context("a CPU")?)?;
    Ok(sched_setaffinity(this, &one)?)
}

/// Runs `work` on one CPU. A packet between two devices of one machine waits in the queue of the CPU that sends it
/// (`netif_rx`), so a sender that changes CPUs reorders its own packets. A test of packet order must therefore pin
/// its sender.
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

//! Decides which jobs of a run run in parallel.
//!
//! Tests that use the host's clock wait a lot, and need a CPU at once after a wait. Guests with the counting clock
//! never wait, and do not notice when they get no CPU: they use what the others leave.

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::mpsc,
    thread,
};

/// The CPU time that a job needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wants {
    /// The job needs a CPU at once, and no other such job beside it: these are the tests on the machine's own kernel.
    Native,
    /// The job needs a CPU at once.
    Timed,
    /// The job takes the CPU time that is left.
    Rest,
}

/// Runs every job, as many in parallel as the CPUs allow; returns the results as they arrive.
pub fn run<J: Send, R: Send>(
    mut waiting: Vec<(Wants, J)>,
    cpus: usize,
    work: impl Fn(J) -> R + Sync,
) -> Vec<R> {
    let (sender, ended) = mpsc::channel();
    let mut running = vec![];
    let mut results = vec![];
    thread::scope(|scope| {
        loop {
            let wants: Vec<Wants> = waiting.iter().map(|(wants, _)| *wants).collect();
            if let Some(next) = next(&wants, &running, cpus) {
                let (wants, job) = waiting.remove(next);
                running.push(wants);
                let (sender, work) = (sender.clone(), &work);
                scope.spawn(move || {
                    let result = catch_unwind(AssertUnwindSafe(|| work(job)));
                    // The channel is closed if another job has panicked.
                    let _ = sender.send((wants, result));
                });
                continue;
            }
            if running.is_empty() {
                break;
            }
            let Ok((wants, result)) = ended.recv() else {
                break;
            };
            let place = running.iter().position(|other| *other == wants);
            place.map(|place| running.swap_remove(place));
            results.push(result.unwrap_or_else(|panic| resume_unwind(panic)));
        }
    });
    results
}

/// Returns the index of the job that may begin, if there is one. One more than there are CPUs runs in parallel,
/// because jobs with the host's clock wait a lot.
fn next(waiting: &[Wants], running: &[Wants], cpus: usize) -> Option<usize> {
    let count = |wants| running.iter().filter(|other| **other == wants).count();
    let rest = count(Wants::Rest);
    let has_cpu = running.len() - rest < cpus;
    let may = |wants: &Wants| match wants {
        Wants::Native => has_cpu && count(Wants::Native) == 0,
        Wants::Timed => has_cpu,
        Wants::Rest => rest < cpus && running.len() <= cpus,
    };
    let first = |of: fn(&Wants) -> bool| waiting.iter().position(|wants| of(wants) && may(wants));
    first(|wants| *wants == Wants::Native)
        .or_else(|| first(|wants| *wants == Wants::Timed))
        .or_else(|| first(|wants| *wants == Wants::Rest))
}

#[cfg(test)]
mod tests {
    use super::{Wants::*, *};

    #[test]
    fn what_goes_by_the_clock_has_a_cpu_each() {
        let all = [Native, Native, Timed, Timed, Rest];
        assert_eq!(next(&all, &[], 2), Some(0));
        assert_eq!(next(&all, &[Native], 2), Some(2));
        assert_eq!(next(&all, &[Native, Timed], 2), Some(4));
        assert_eq!(next(&all, &[Native, Timed, Rest], 2), None);
        assert_eq!(next(&[Timed], &[Rest], 1), Some(0));
    }

    #[test]
    fn what_takes_the_rest_is_one_to_a_cpu() {
        assert_eq!(next(&[Rest], &[Rest], 2), Some(0));
        assert_eq!(next(&[Rest], &[Rest, Rest], 2), None);
        assert_eq!(next(&[Rest], &[Timed, Rest], 2), Some(0));
    }

    #[test]
    fn every_job_runs_once() {
        let jobs = (0..20).map(|number| ([Native, Timed, Rest][number % 3], number));
        let mut ran = run(jobs.collect(), 2, |number| number);
        ran.sort_unstable();
        assert_eq!(ran, (0..20).collect::<Vec<_>>());
    }
}

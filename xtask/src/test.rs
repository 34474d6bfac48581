//! `cargo xtask test`: runs the four levels of tests and counts what passed, failed and was skipped.

mod args;
mod bracket;
mod build;
mod guests;
mod lab;
mod native;
mod programs;
mod report;
mod schedule;
mod session;
mod tracker;

use std::{collections::BTreeMap, thread, time::Instant};

use anyhow::Result;
pub use args::Args;
use args::Level;
use guests::{Guest, guests};
use programs::Clock;
use report::Count;
use schedule::Wants;
use session::Session;
use tracker::Tracker;

use crate::{
    setup,
    vm::{self, Kernel},
};

/// Runs the tests, prints the summary, and ends the process with code 1 if anything failed.
pub fn test(args: &Args) -> Result<()> {
    // In a fixed order, each once, whatever the command line says: the cheap ones first.
    let is_asked_for = |level: &Level| args.levels.is_empty() || args.levels.contains(level);
    let levels: Vec<Level> = Level::ALL.into_iter().filter(is_asked_for).collect();
    if args.queues {
        vm::ensure_taps("cargo xtask test vm --queues")?;
    }
    setup::ensure(setup::Need::Build)?;
    if levels.iter().any(|level| *level != Level::Host) {
        setup::ensure(setup::Need::Lab)?;
    }
    let session = Session::build(args, &levels)?;
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    let ran = schedule::run(jobs(args, &levels), cpus, |job| run(&session, &job));
    let sum = summary(args, ran);
    if sum.failed > 0 || sum.total() == 0 || (sum.skipped > 0 && !args.allow_skip) {
        // The sum is the last line by contract; an error would print another.
        std::process::exit(1);
    }
    Ok(())
}

/// A part of a run that ends on its own.
enum Job {
    Native(Level),
    Guest(Guest),
}

/// A row of the summary: a level, on a kernel if it is that of the virtual machines.
type Row = (Level, Option<Kernel>);

fn name((level, kernel): Row) -> String {
    let name = level.name();
    kernel.map_or(name.to_owned(), |kernel| format!("{name} {kernel}"))
}

/// How a job, or a level, went.
struct Ran {
    row: Row,
    tracker: Tracker,
    seconds: f64,
}

fn jobs(args: &Args, levels: &[Level]) -> Vec<(Wants, Job)> {
    let mut jobs = vec![];
    for level in levels {
        match level {
            Level::Vm => jobs.extend(guests(args).into_iter().map(|guest| {
                let wants = match guest.clock {
                    Clock::Real => Wants::Timed,
                    Clock::Counted => Wants::Rest,
                };
                (wants, Job::Guest(guest))
            })),
            level => jobs.push((Wants::Native, Job::Native(*level))),
        }
    }
    jobs
}

fn run(session: &Session, job: &Job) -> Ran {
    let (row, what) = match job {
        Job::Native(level) => ((*level, None), String::new()),
        Job::Guest(guest) => (
            (Level::Vm, Some(guest.kernel)),
            format!(": {}", guest.programs.join(", ")),
        ),
    };
    let name = name(row);
    println!("== {name}{what}");
    let start = Instant::now();
    let mut tracker = Tracker::default();
    let ended = match job {
        Job::Native(level) => session.native(*level, &mut tracker),
        Job::Guest(guest) => session.guest(guest, &mut tracker),
    };
    // A lab that doesn't work fails its level; everything else still runs.
    if let Err(error) = ended {
        println!("  {name}: {error:#}");
        tracker.fail(format!("{error:#}"));
    }
    Ran {
        row,
        tracker,
        seconds: start.elapsed().as_secs_f64(),
    }
}

/// Prints what all jobs gave, by level, and the sum.
fn summary(args: &Args, ran: Vec<Ran>) -> Count {
    let mut levels: BTreeMap<Row, (Tracker, f64)> = BTreeMap::new();
    for Ran {
        row,
        tracker,
        seconds,
    } in ran
    {
        let level = levels.entry(row).or_default();
        level.0.add(tracker);
        level.1 += seconds;
    }
    let (mut rows, mut times, mut failures) = (vec![], vec![], vec![]);
    let mut sum = Count::default();
    println!();
    for (row, (mut tracker, seconds)) in levels {
        let name = name(row);
        if tracker.count.total() == 0 && args.filter.is_none() {
            tracker.fail("no test ran".to_owned());
        }
        tracker
            .skips
            .iter()
            .for_each(|skip| println!("skipped ({name}) {skip}"));
        tracker
            .figures
            .iter()
            .for_each(|figure| println!("{figure} ({name})"));
        let failed = tracker.failures.iter();
        failures.extend(failed.map(|failure| format!("failed ({name}) {failure}")));
        let took = tracker.times.into_iter();
        times.extend(took.map(|(took, test)| (took, format!("{name}  {test}"))));
        sum += tracker.count;
        rows.push((name, tracker.count, seconds));
    }
    println!("{}", report::table(&rows));
    println!("{}", report::slowest(times));
    failures.iter().for_each(|failure| println!("{failure}"));
    println!("{sum}");
    sum
}

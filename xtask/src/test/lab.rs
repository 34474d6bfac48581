//! Runs tests in a guest.

use std::time::Duration;

use anyhow::{Result, bail};

use super::{
    bracket::{Bracket, bracket},
    guests::{Guest, script},
    programs::{Clock, TIMEOUT},
    session::Session,
    tracker::Tracker,
};
use crate::vm::{self, End, File, Job};

impl Session<'_> {
    /// Boots a guest and runs its programs there.
    pub fn guest(&self, guest: &Guest, tracker: &mut Tracker) -> Result<()> {
        let kernel = guest.kernel;
        let outcome = vm::run(&self.job(guest)?, |line| {
            let shown = match bracket(line) {
                Some(Bracket::Begin(name)) => {
                    tracker.begin(name);
                    Vec::new()
                }
                Some(Bracket::End(rc)) => tracker.end(Some(rc)).into_iter().collect(),
                None => tracker.line(line),
            };
            shown.iter().for_each(|text| println!("{kernel}{text}"));
        })?;
        // Only a guest that died leaves a bracket open.
        if let Some(complaint) = tracker.end(None) {
            println!("{kernel}{complaint}");
        }
        let log = outcome.log.display();
        match outcome.end {
            End::Done(0) => Ok(()),
            End::Done(rc) => {
                bail!("the guest's script ended with code {rc}; its console is in {log}")
            }
            End::Died(how) => bail!("the guest died: {how}; its console is in {log}"),
        }
    }

    fn job(&self, guest: &Guest) -> Result<Job> {
        let Guest {
            kernel,
            clock,
            programs,
        } = guest;
        // Guests of one kernel have no program in common.
        let name = format!("{kernel}-{}", programs[0]);
        let mut job = Job::new(name, *kernel, script(self.args, programs));
        job.icount = *clock == Clock::Counted;
        job.yields = job.icount;
        job.queues = self.args.queues.then_some(2);
        let shares = if job.yields { 2 } else { 1 };
        job.timeout = Duration::from_secs(TIMEOUT * programs.len() as u64 * shares);
        for name in ["vlanfast", "vlanfast-next"] {
            job.files
                .push(File::new(self.program(name)?, format!("bin/{name}")));
        }
        for &name in programs {
            job.files
                .push(File::new(self.program(name)?, format!("tests/{name}")));
        }
        Ok(job)
    }
}

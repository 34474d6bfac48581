//! Runs tests in a guest.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Result, bail};

use super::{
    bracket::{Bracket, bracket},
    guests::{Guest, script},
    programs::Clock,
    session::Session,
    tracker::Tracker,
};
use crate::vm::{self, End, File, Job};

/// For all programs of a guest, in a run that a guest shares with others.
const LIMIT: Duration = Duration::from_secs(4800);

impl Session<'_> {
    /// Boots a guest and runs its programs there.
    pub fn guest(&self, guest: &Guest, tracker: &mut Tracker) -> Result<()> {
        let kernel = guest.kernel;
        let mut begun = BTreeSet::new();
        let outcome = vm::run(&self.job(guest)?, |line| {
            let shown = match bracket(line) {
                Some(Bracket::Begin(name)) => {
                    begun.insert(name.to_owned());
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
        let missing = guest.programs.iter().filter(|name| !begun.contains(**name));
        missing.for_each(|name| tracker.fail(format!("{name}: it never began")));
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
        // The guest itself ends a program after `TIMEOUT`. This is for a guest that hangs.
        job.timeout = LIMIT;
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

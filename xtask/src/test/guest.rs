//! What the guests of level `vm` run.

use super::Args;
use crate::vm::Kernel;

/// Seconds for one test program; under TCG the tutorial takes a few minutes.
pub const PROGRAM_TIMEOUT: u64 = 2400;

/// How time passes in a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// As on the host, for programs that compute, and for those that race on two CPUs.
    Real,
    /// It counts instructions, and jumps to the next timer where nothing is to be done: computing takes somewhat
    /// longer, waiting no time at all, and no bound depends on how busy the host is. One CPU.
    Counted,
}

/// In the order in which the guests run.
const CLOCKS: [Clock; 2] = [Clock::Real, Clock::Counted];

/// Every program and the guest that it wants, in the order in which they run. `storm` has two CPUs send at once;
/// `hostile` has processes hang in their sleep and others race them; `kernel` and `scale` never wait.
const PROGRAMS: &[(&str, Clock)] = &[
    ("kernel", Clock::Real),
    ("netns", Clock::Counted),
    ("hostile", Clock::Real),
    ("trunk", Clock::Counted),
    ("storm", Clock::Real),
    ("learned", Clock::Counted),
    ("shortcut", Clock::Counted),
    ("protocols", Clock::Counted),
    ("sync", Clock::Counted),
    ("life", Clock::Counted),
    ("scale", Clock::Real),
    ("tutorial", Clock::Counted),
    ("metrics", Clock::Counted),
];
/// The one for NICs with several queues, which want a CPU each.
const QUEUES: (&str, Clock) = ("queues", Clock::Real);

/// What one kernel says enough about: clsact is with 6.1, and tcx with the machine's own kernel; and how large a host
/// may be does not depend on the kernel.
const ENOUGH: &[(&str, Kernel)] = &[("netns", Kernel::V6_1), ("scale", Kernel::V6_12)];

/// What `--program` takes.
pub fn names() -> impl Iterator<Item = &'static str> {
    PROGRAMS.iter().map(|(name, _)| *name)
}

/// The guests for a kernel, one after the other, each with its programs: those that were asked for, or as many as the
/// minutes of a whole run have room for.
pub fn guests(args: &Args, kernel: Kernel) -> Vec<(Clock, Vec<&'static str>)> {
    let wanted = programs(args, kernel);
    let guest = |clock| {
        let its = wanted.iter().filter(|(_, wants)| *wants == clock);
        (clock, its.map(|(name, _)| *name).collect::<Vec<_>>())
    };
    let guests = CLOCKS.into_iter().map(guest);
    guests
        .filter(|(_, programs)| !programs.is_empty())
        .collect()
}

fn programs(args: &Args, kernel: Kernel) -> Vec<(&'static str, Clock)> {
    if args.queues {
        return vec![QUEUES];
    }
    let is_asked_for = args.kernel.is_some() || args.filter.is_some();
    let belongs = |(name, _): &(&str, Clock)| match &args.program {
        Some(program) => program == name,
        None => {
            let only = ENOUGH.iter().find(|(other, _)| other == name);
            is_asked_for || only.is_none_or(|(_, only)| *only == kernel)
        }
    };
    PROGRAMS.iter().copied().filter(belongs).collect()
}

/// Runs each program between two brackets, one after the other whatever becomes of it.
pub fn script(args: &Args, programs: &[&str]) -> String {
    let mut script = String::from(
        "export VLANFAST_BIN=/lab/bin/vlanfast VLANFAST_NEXT_BIN=/lab/bin/vlanfast-next\n\
         export VLANFAST_LAB=1 RUST_BACKTRACE=1\n",
    );
    if args.allow_skip {
        script += "export VLANFAST_ALLOW_SKIP=1\n";
    }
    let filter = args.filter.as_ref().map_or(String::new(), |text| {
        format!("'{}'", text.replace('\'', r"'\''"))
    });
    for name in programs {
        // Minutes count in the lab, and `storm` has the same there on a VLAN. An emulated machine that a loop keeps busy
        // dies of it now and then, with flags that no CPU sets, and takes all programs with it. Who asks for some gets
        // them.
        let left_out = match (*name, &args.filter) {
            ("netns", None) => "--skip storm::",
            ("trunk", None) => "--skip looped::",
            _ => "",
        };
        script += &format!(
            "echo '@@ begin {name}'\n\
             timeout -k 5 {PROGRAM_TIMEOUT} /lab/tests/{name} --test-threads=1 --nocapture {filter} {left_out} 2>&1\n\
             echo \"@@ end {name} rc=$?\"\n"
        );
    }
    // The brackets carry the verdicts.
    script + "exit 0\n"
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    fn guests_of(line: &str, kernel: Kernel) -> Vec<(Clock, Vec<&'static str>)> {
        let Command { args } = Command::parse_from(line.split(' '));
        guests(&args, kernel)
    }

    fn programs_of(line: &str, kernel: Kernel) -> Vec<&'static str> {
        let guests = guests_of(line, kernel).into_iter();
        guests.flat_map(|(_, programs)| programs).collect()
    }

    #[test]
    fn a_whole_run_has_every_program_on_some_kernel_and_most_on_both() {
        let runs = Kernel::ALL.map(|kernel| programs_of("test", kernel));
        let kernels = |name: &&str| runs.iter().filter(|run| run.contains(name)).count();
        assert!(names().all(|name| kernels(&name) > 0));
        let on_both = names().filter(|name| kernels(name) == 2);
        assert_eq!(on_both.count(), PROGRAMS.len() - ENOUGH.len());
    }

    #[test]
    fn each_program_runs_once_in_the_guest_that_it_wants() {
        for kernel in Kernel::ALL {
            let guests = guests_of(&format!("test vm --kernel {kernel}"), kernel);
            assert_eq!(
                guests.iter().map(|(clock, _)| *clock).collect::<Vec<_>>(),
                CLOCKS
            );
            for (name, clock) in PROGRAMS {
                let runs = |(its, programs): &(Clock, Vec<&str>)| {
                    let count = programs.iter().filter(|program| *program == name).count();
                    assert_eq!(count, usize::from(its == clock), "{name}");
                };
                guests.iter().for_each(runs);
            }
        }
    }

    #[test]
    fn who_asks_for_some_gets_them() {
        let all = names().count();
        for kernel in Kernel::ALL {
            let only = format!("test vm --kernel {kernel}");
            assert_eq!(programs_of(&only, kernel).len(), all);
            assert_eq!(programs_of("test vm --filter a", kernel).len(), all);
            let guests = guests_of("test vm --program scale", kernel);
            assert_eq!(guests, [(Clock::Real, vec!["scale"])]);
            let guests = guests_of("test vm --program life", kernel);
            assert_eq!(guests, [(Clock::Counted, vec!["life"])]);
            let guests = guests_of("test vm --queues", kernel);
            assert_eq!(guests, [(Clock::Real, vec!["queues"])]);
        }
    }
}

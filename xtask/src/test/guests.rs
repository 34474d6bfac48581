//! The guests of a run of level `vm`, and the programs of each.

use super::{
    args::Args,
    programs::{Clock, PROGRAMS, Program, QUEUES, TIMEOUT},
};
use crate::vm::Kernel;

/// One boot, with the programs that it runs one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guest {
    pub kernel: Kernel,
    pub clock: Clock,
    pub programs: Vec<&'static str>,
}

/// Returns the requested guests, or as many as fit the time limit of a whole run; those that take longest come first.
pub fn guests(args: &Args) -> Vec<Guest> {
    let kernels = args
        .kernel
        .map_or(Kernel::ALL.to_vec(), |kernel| vec![kernel]);
    let mut guests: Vec<(u8, Guest)> = vec![];
    for kernel in kernels {
        for program in programs(args, kernel) {
            // A small number of tests does not justify more boots.
            let number = if args.filter.is_some() {
                0
            } else {
                program.guest
            };
            let shared = guests.iter_mut().find(|(other, guest)| {
                (*other, guest.kernel, guest.clock) == (number, kernel, program.clock)
            });
            match shared {
                Some((_, guest)) => guest.programs.push(program.name),
                None => guests.push((
                    number,
                    Guest {
                        kernel,
                        clock: program.clock,
                        programs: vec![program.name],
                    },
                )),
            }
        }
    }
    guests.sort_by_key(|(number, _)| *number);
    guests.into_iter().map(|(_, guest)| guest).collect()
}

fn programs(args: &Args, kernel: Kernel) -> Vec<Program> {
    if args.queues {
        return vec![QUEUES];
    }
    let is_asked_for = args.kernel.is_some() || args.filter.is_some();
    let belongs = |program: &Program| match &args.program {
        Some(name) => name == program.name,
        None => is_asked_for || program.kernel.is_none_or(|only| only == kernel),
    };
    PROGRAMS.iter().copied().filter(belongs).collect()
}

/// Runs each program between two brackets, whether or not the previous one failed.
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
             timeout -k 5 {TIMEOUT} /lab/tests/{name} --test-threads=1 --nocapture {filter} {left_out} 2>&1\n\
             echo \"@@ end {name} rc=$?\"\n"
        );
    }
    // The brackets carry the verdicts.
    script + "exit 0\n"
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::{super::programs::names, *};

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    fn guests_of(line: &str) -> Vec<Guest> {
        let Command { args } = Command::parse_from(line.split(' '));
        guests(&args)
    }

    /// The number of kernels on which a program runs, and how often it runs.
    fn runs(guests: &[Guest], name: &str) -> Vec<Kernel> {
        let its = guests.iter().flat_map(|guest| {
            let programs = guest.programs.iter().filter(|program| **program == name);
            programs.map(|_| guest.kernel)
        });
        its.collect()
    }

    #[test]
    fn a_whole_run_has_every_program_once_on_each_of_its_kernels() {
        let guests = guests_of("test");
        for program in PROGRAMS {
            let wanted = program
                .kernel
                .map_or(Kernel::ALL.to_vec(), |kernel| vec![kernel]);
            assert_eq!(runs(&guests, program.name), wanted, "{}", program.name);
        }
        let mixed = |guest: &&Guest| {
            let clocks = PROGRAMS
                .iter()
                .filter(|program| guest.programs.contains(&program.name));
            clocks
                .map(|program| program.clock)
                .any(|clock| clock != guest.clock)
        };
        assert_eq!(guests.iter().find(mixed), None);
    }

    #[test]
    fn the_longest_guests_come_first() {
        let guests = guests_of("test");
        let first = |clock| guests.iter().find(|guest| guest.clock == clock);
        assert_eq!(
            first(Clock::Real).map(|guest| &guest.programs[..]),
            Some(&["hostile"][..])
        );
        assert_eq!(
            first(Clock::Counted).map(|guest| &guest.programs[..]),
            Some(&["netns"][..])
        );
    }

    #[test]
    fn who_asks_for_some_gets_them() {
        for kernel in Kernel::ALL {
            let guests = guests_of(&format!("test vm --kernel {kernel}"));
            assert!(names().all(|name| runs(&guests, name) == [kernel]));
        }
        let guests = guests_of("test vm --filter a");
        assert!(names().all(|name| runs(&guests, name) == Kernel::ALL));
        assert_eq!(guests.len(), 4, "one of each clock and kernel");
        for (line, clock, name) in [
            ("test vm --kernel 6.1 --program scale", Clock::Real, "scale"),
            (
                "test vm --kernel 6.1 --program life",
                Clock::Counted,
                "life",
            ),
            ("test vm --kernel 6.1 --queues", Clock::Real, "queues"),
        ] {
            let guest = Guest {
                kernel: Kernel::V6_1,
                clock,
                programs: vec![name],
            };
            assert_eq!(guests_of(line), [guest]);
        }
    }
}

//! What the guests of level `vm` run.

use super::Args;
use crate::vm::Kernel;

/// Seconds for one test program; under TCG the tutorial takes a few minutes.
pub const PROGRAM_TIMEOUT: u64 = 2400;

/// In the order in which they run.
pub const PROGRAMS: &[&str] = &[
    "kernel",
    "netns",
    "hostile",
    "trunk",
    "storm",
    "learned",
    "shortcut",
    "protocols",
    "sync",
    "life",
    "scale",
    "tutorial",
    "metrics",
];
/// The one for NICs with several queues.
const QUEUES: &str = "queues";

/// What one kernel says enough about: clsact is with 6.1, and tcx with the machine's own kernel; and how large a host
/// may be does not depend on the kernel.
const ENOUGH: &[(&str, Kernel)] = &[("netns", Kernel::V6_1), ("scale", Kernel::V6_12)];

/// The programs for a kernel: those that were asked for, or as many as the minutes of a whole run have room for.
pub fn programs(args: &Args, kernel: Kernel) -> Vec<&str> {
    match (&args.program, args.queues) {
        (Some(program), _) => vec![program],
        (None, true) => vec![QUEUES],
        (None, false) => {
            let is_asked_for = args.kernel.is_some() || args.filter.is_some();
            let belongs = |name: &&str| {
                let only = ENOUGH.iter().find(|(other, _)| other == name);
                is_asked_for || only.is_none_or(|(_, only)| *only == kernel)
            };
            PROGRAMS.iter().copied().filter(belongs).collect()
        }
    }
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
        // Minutes count in the lab, and `storm` has the same there on a VLAN. Who asks for some gets them.
        let left_out = match (*name, &args.filter) {
            ("netns", None) => "--skip storm::",
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

    fn programs_of(line: &str, kernel: Kernel) -> Vec<String> {
        let Command { args } = Command::parse_from(line.split(' '));
        let programs = programs(&args, kernel);
        programs.into_iter().map(str::to_owned).collect()
    }

    #[test]
    fn a_whole_run_has_every_program_on_some_kernel_and_most_on_both() {
        let [older, newer] = Kernel::ALL.map(|kernel| programs_of("test", kernel));
        let kernels = |name: &&str| {
            let runs = [&older, &newer]
                .into_iter()
                .filter(|one| one.iter().any(|it| it == name));
            runs.count()
        };
        let on_both = PROGRAMS.iter().filter(|name| kernels(name) == 2);
        assert!(PROGRAMS.iter().all(|name| kernels(name) > 0));
        assert_eq!(on_both.count(), PROGRAMS.len() - ENOUGH.len());
    }

    #[test]
    fn who_asks_for_some_gets_them() {
        for kernel in Kernel::ALL {
            assert_eq!(
                programs_of(&format!("test vm --kernel {kernel}"), kernel),
                PROGRAMS
            );
            assert_eq!(programs_of("test vm --filter a", kernel), PROGRAMS);
            assert_eq!(programs_of("test vm --program scale", kernel), ["scale"]);
            assert_eq!(programs_of("test vm --queues", kernel), ["queues"]);
        }
    }
}

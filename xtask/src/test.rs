//! `cargo xtask test`: runs the four levels of tests and counts what passed, failed and was skipped.

mod bracket;
mod build;
mod guest;
mod report;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::vm::{self, End, Job, Kernel};
use crate::{ebpf, setup, sh};
use bracket::{Bracket, bracket};
use guest::{Clock, PROGRAM_TIMEOUT};
use report::{Count, Tracker};

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Level {
    /// Unit and property tests; no privileges
    Host,
    /// The BPF object through BPF_PROG_TEST_RUN on the running kernel; root
    Kernel,
    /// Live trunks in network namespaces on the running kernel; root
    Netns,
    /// All of it and real Docker, on Debian's 6.1 and 6.12 kernels in QEMU
    Vm,
}

#[derive(clap::Args)]
pub struct Args {
    /// What to run; everything if not given
    levels: Vec<Level>,
    /// Don't fail when tests were skipped
    #[arg(long)]
    allow_skip: bool,
    /// Run the vm level on this kernel only
    #[arg(long)]
    kernel: Option<Kernel>,
    /// Test the optimised binary, as it is released
    #[arg(long)]
    release: bool,
    /// Run this program of the vm level only
    #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(guest::names()))]
    program: Option<String>,
    /// Run the vm level's program for NICs with two queues, and no other; root
    #[arg(long, conflicts_with = "program")]
    queues: bool,
    /// Run only the tests whose names contain this
    #[arg(long)]
    filter: Option<String>,
}

/// Runs the tests, prints the summary, and ends the process with code 1 if anything failed.
pub fn test(args: &Args) -> Result<()> {
    let all = [Level::Host, Level::Kernel, Level::Netns, Level::Vm];
    let levels = if args.levels.is_empty() {
        &all[..]
    } else {
        &args.levels
    };
    if args.queues {
        vm::ensure_taps("cargo xtask test vm --queues")?;
    }
    setup::ensure(setup::Need::Build)?;
    if levels.iter().any(|level| *level != Level::Host) {
        setup::ensure(setup::Need::Lab)?;
    }
    let session = Session::build(args, levels)?;
    let mut rows = Vec::new();
    let mut notes = Vec::new();
    let mut failures = Vec::new();
    // In a fixed order, each once, whatever the command line says: the cheap ones first.
    for level in all.into_iter().filter(|level| levels.contains(level)) {
        let kernels = match (level, args.kernel) {
            (Level::Vm, None) => Kernel::ALL.map(Some).to_vec(),
            (Level::Vm, only) => vec![only],
            _ => vec![None],
        };
        // A guest has one core of the host's: they run side by side.
        let ran: Vec<_> = thread::scope(|scope| {
            let session = &session;
            let run = |kernel| scope.spawn(move || session.level(level, kernel));
            let running: Vec<_> = kernels.into_iter().map(run).collect();
            let join = |one: thread::ScopedJoinHandle<'_, _>| {
                one.join().unwrap_or_else(|panic| resume_unwind(panic))
            };
            running.into_iter().map(join).collect()
        });
        for Ran {
            name,
            tracker,
            seconds,
        } in ran
        {
            let skips = tracker.skips.iter();
            notes.extend(skips.map(|skip| format!("skipped ({name}) {skip}")));
            let figures = tracker.figures.iter();
            notes.extend(figures.map(|figure| format!("{figure} ({name})")));
            let failed = tracker.failures.iter();
            failures.extend(failed.map(|failure| format!("failed ({name}) {failure}")));
            rows.push((name, tracker.count, seconds));
        }
    }
    let mut sum = Count::default();
    rows.iter().for_each(|(_, count, _)| sum += *count);
    println!();
    notes.iter().for_each(|note| println!("{note}"));
    println!("{}", report::table(&rows));
    failures.iter().for_each(|failure| println!("{failure}"));
    println!("{sum}");
    if sum.failed > 0 || sum.total() == 0 || (sum.skipped > 0 && !args.allow_skip) {
        // The sum is the last line by contract; an error would print another.
        std::process::exit(1);
    }
    Ok(())
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::Host => "host",
        Level::Kernel => "kernel",
        Level::Netns => "netns",
        Level::Vm => "vm",
    }
}

/// The programs of level `netns`.
const NETNS: [&str; 2] = ["netns", "hostile"];

/// Tests in a module of this name need 802.1Q, which this machine's kernel need not have: they are level `vm`'s.
const TAGGED: &str = "::tagged::";

/// How a level went.
struct Ran {
    name: String,
    tracker: Tracker,
    seconds: f64,
}

/// What the levels share: the programs to run and how.
struct Session<'a> {
    args: &'a Args,
    programs: BTreeMap<String, PathBuf>,
    logs: PathBuf,
}

impl<'a> Session<'a> {
    fn build(args: &'a Args, levels: &[Level]) -> Result<Session<'a>> {
        let logs = sh::workspace().join("target/lab");
        fs::create_dir_all(&logs).with_context(|| format!("creating {}", logs.display()))?;
        let mut programs = BTreeMap::new();
        let rooted = levels.iter().any(|level| *level != Level::Host);
        if rooted {
            programs.insert("vlanfast-next".to_owned(), ebpf::build_next(args.release)?);
        }
        programs.insert("vlanfast".to_owned(), ebpf::build(args.release)?);
        if rooted {
            programs.extend(build::tests()?);
        }
        Ok(Session {
            args,
            programs,
            logs,
        })
    }

    /// Runs a level, on a kernel if it is that of the virtual machines.
    fn level(&self, level: Level, kernel: Option<Kernel>) -> Ran {
        let name = match (level, kernel) {
            (Level::Vm, Some(kernel)) => format!("vm {kernel}"),
            (level, _) => level_name(level).to_owned(),
        };
        println!("== {name}");
        let start = Instant::now();
        let mut tracker = Tracker::default();
        // A lab that doesn't work fails its level; the others, and the level's other guest, still run.
        let note = |ended: Result<()>, tracker: &mut Tracker| {
            if let Err(error) = ended {
                println!("  {name}: {error:#}");
                tracker.fail(format!("{error:#}"));
            }
        };
        match (level, kernel) {
            (Level::Vm, Some(kernel)) => {
                for (clock, programs) in guest::guests(self.args, kernel) {
                    let ended = self.guest(kernel, clock, &programs, &mut tracker);
                    note(ended, &mut tracker);
                }
            }
            _ => note(self.run(level, &mut tracker), &mut tracker),
        }
        if tracker.count.total() == 0 && self.args.filter.is_none() {
            println!("  {name}: no test ran");
            tracker.fail("no test ran".to_owned());
        }
        Ran {
            name,
            tracker,
            seconds: start.elapsed().as_secs_f64(),
        }
    }

    /// Runs a level on this machine's kernel.
    fn run(&self, level: Level, tracker: &mut Tracker) -> Result<()> {
        match level {
            Level::Host => self.host(tracker),
            Level::Netns => NETNS.iter().try_for_each(|name| self.direct(name, tracker)),
            level => self.direct(level_name(level), tracker),
        }
    }

    fn program(&self, name: &str) -> Result<&Path> {
        self.programs.get(name).map(PathBuf::as_path).with_context(|| {
            format!("finding the test target `{name}` of vlanfast-tests: cargo built none; is it in tests/tests?")
        })
    }

    fn host(&self, tracker: &mut Tracker) -> Result<()> {
        let mut command = Command::new("cargo");
        command.args([
            "test",
            "--no-fail-fast",
            "-p",
            "vlanfast-common",
            "-p",
            "vlanfast",
            "-p",
            "xtask",
        ]);
        command.current_dir(sh::workspace());
        if let Some(filter) = &self.args.filter {
            command.args(["--", filter]);
        }
        self.follow("host", command, tracker)
    }

    /// Runs a test program on this machine's kernel, as root.
    fn direct(&self, name: &str, tracker: &mut Tracker) -> Result<()> {
        let program = self.program(name)?;
        let mut env = vec![
            format!("VLANFAST_BIN={}", self.program("vlanfast")?.display()),
            format!(
                "VLANFAST_NEXT_BIN={}",
                self.program("vlanfast-next")?.display()
            ),
        ];
        if self.args.allow_skip {
            env.push("VLANFAST_ALLOW_SKIP=1".to_owned());
        }
        // Handed over by env(1): sudo drops variables even with -E where its policy says so.
        let mut words: Vec<&OsStr> = vec!["env".as_ref()];
        words.extend(env.iter().map(OsStr::new));
        let seconds = PROGRAM_TIMEOUT.to_string();
        words.extend(["timeout", "--kill-after=5", &seconds].map(OsStr::new));
        // A BPF file system of the tests' own: there may be none, and another's pins are not ours to see.
        let mounted = r#"mount -t bpf bpf /sys/fs/bpf && exec "$0" "$@""#;
        words.extend(["unshare", "--mount", "sh", "-c", mounted].map(OsStr::new));
        words.push(program.as_os_str());
        words.extend(["--test-threads=1", "--nocapture", "--skip", TAGGED].map(OsStr::new));
        words.extend(self.args.filter.iter().map(OsStr::new));
        if !sh::is_root() {
            let sudo = Command::new("sudo")
                .arg("--version")
                .stdout(Stdio::null())
                .status();
            if !sudo.is_ok_and(|status| status.success()) {
                bail!(
                    "running the {name} tests: they need root and there is no sudo; run `cargo xtask test {name}` as root"
                );
            }
            words.insert(0, "sudo".as_ref());
        }
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        self.follow(name, command, tracker)
    }

    /// Runs a command, its output and errors in one stream, to the log and the tracker.
    fn follow(&self, name: &str, mut command: Command, tracker: &mut Tracker) -> Result<()> {
        let log = self.logs.join(format!("{name}.log"));
        let mut file = File::create(&log).with_context(|| format!("creating {}", log.display()))?;
        let (reader, writer) =
            io::pipe().with_context(|| format!("making a pipe for the {name} tests"))?;
        let errors = writer
            .try_clone()
            .with_context(|| format!("making a pipe for the {name} tests"))?;
        command.stdin(Stdio::null()).stdout(writer).stderr(errors);
        let mut child = command
            .spawn()
            .with_context(|| format!("starting the {name} tests"))?;
        // It holds our copies of the pipe, which would keep the reader from its end.
        drop(command);
        tracker.begin(name);
        for line in BufReader::new(reader).split(b'\n') {
            let line = line.with_context(|| format!("reading the {name} tests' output"))?;
            let line = String::from_utf8_lossy(&line);
            writeln!(file, "{line}").with_context(|| format!("writing {}", log.display()))?;
            tracker
                .line(&line)
                .iter()
                .for_each(|text| println!("{text}"));
        }
        let status = child
            .wait()
            .with_context(|| format!("waiting for the {name} tests"))?;
        if let Some(complaint) = tracker.end(status.code()) {
            println!("{complaint}\n  all of it: {}", log.display());
        }
        Ok(())
    }

    /// Boots a guest and runs programs in it.
    fn guest(
        &self,
        kernel: Kernel,
        clock: Clock,
        programs: &[&str],
        tracker: &mut Tracker,
    ) -> Result<()> {
        let script = guest::script(self.args, programs);
        let name = match clock {
            Clock::Real => kernel.to_string(),
            Clock::Counted => format!("{kernel}-icount"),
        };
        let mut job = Job::new(name, kernel, script);
        job.icount = clock == Clock::Counted;
        if self.args.queues {
            job.queues = Some(2);
        }
        job.timeout = Duration::from_secs(PROGRAM_TIMEOUT * programs.len() as u64);
        for name in ["vlanfast", "vlanfast-next"] {
            job.files
                .push(vm::File::new(self.program(name)?, format!("bin/{name}")));
        }
        for &name in programs {
            job.files
                .push(vm::File::new(self.program(name)?, format!("tests/{name}")));
        }
        let outcome = vm::run(&job, |line| {
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
        // Only a guest that died leaves a program open.
        if let Some(complaint) = tracker.end(None) {
            println!("{kernel}{complaint}");
        }
        match outcome.end {
            End::Done(0) => Ok(()),
            End::Done(rc) => bail!(
                "the guest's script ended with code {rc}; its console is in {}",
                outcome.log.display()
            ),
            End::Died(how) => bail!(
                "the guest died: {how}; its console is in {}",
                outcome.log.display()
            ),
        }
    }
}

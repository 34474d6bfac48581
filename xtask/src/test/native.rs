//! Runs tests on this machine's kernel.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Write},
    process::{Command, Stdio},
};

use anyhow::{Context, Result};

use super::{args::Level, programs::TIMEOUT, session::Session, tracker::Tracker};
use crate::sh;

/// The programs of level `netns`.
const NETNS: [&str; 2] = ["netns", "hostile"];

/// Tests in a module of this name need 802.1Q, which this machine's kernel may lack, so they belong to level `vm`.
const TAGGED: &str = "::tagged::";

impl Session<'_> {
    /// Runs a level on this machine's kernel.
    pub fn native(&self, level: Level, tracker: &mut Tracker) -> Result<()> {
        match level {
            Level::Host => self.host(tracker),
            Level::Netns => NETNS.iter().try_for_each(|name| self.direct(name, tracker)),
            level => self.direct(level.name(), tracker),
        }
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
        self.follow("host", command, tracker)?;
        // The programs run in parallel, so the time between two results means nothing.
        tracker.times.clear();
        Ok(())
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
        // env(1) passes the variables, because sudo may drop them even with -E, depending on its policy.
        let mut command = sh::as_root(&format!("`cargo xtask test {name}`"))?;
        command.args(env);
        let seconds = TIMEOUT.to_string();
        // The tests get a BPF file system of their own: there may be none, and the host's pins must not be visible.
        let mounted = r#"mount -t bpf bpf /sys/fs/bpf && exec "$0" "$@""#;
        command
            .args(["timeout", "--kill-after=5", &seconds])
            .args(["unshare", "--mount", "sh", "-c", mounted])
            .arg(program)
            .args(["--test-threads=1", "--nocapture", "--skip", TAGGED])
            .args(&self.args.filter);
        self.follow(name, command, tracker)
    }

    /// Runs a command, and sends its output and errors as one stream to the log and the tracker.
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
        // The command holds copies of the pipe, which would keep the reader from reaching its end.
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
}

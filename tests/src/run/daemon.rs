//! Third-party daemons, which run in a namespace for as long as a test needs them.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tempfile::TempDir;

use crate::net::namespace::Netns;

/// This is longer than any of the daemons takes to start under emulation.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running program. It ends with its children when this is dropped.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    directory: TempDir,
}

impl Daemon {
    /// Starts a shell command in a namespace and waits until it has printed `ready`. The program finds an empty
    /// directory of its own in `$DIR`, with `config` in a file of that name.
    ///
    /// The line should end in `exec`, so that there is no shell between.
    pub fn start(netns: &Netns, line: &str, config: &str, ready: &str) -> Result<Self> {
        let directory = TempDir::new().context("failed to make a directory")?;
        fs::write(directory.path().join("config"), config)?;
        let log = File::create(directory.path().join("log"))?;
        let mut command: Command = netns.command("sh");
        let child = command
            .args(["-c", line])
            .env("DIR", directory.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // The program gets a process group of its own, so that its children can be ended with it.
            .process_group(0)
            .spawn()
            .with_context(|| format!("failed to start `{line}`"))?;
        let mut daemon = Self { child, directory };
        let start = Instant::now();
        while !daemon.said().contains(ready) {
            if let Some(status) = daemon.child.try_wait()? {
                bail!("`{line}` ended ({status}): {}", daemon.said());
            }
            if start.elapsed() > PATIENCE {
                bail!("`{line}` never said '{ready}': {}", daemon.said());
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(daemon)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns everything that it has printed so far, errors included.
    pub fn said(&self) -> String {
        let log = fs::read(self.directory.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = killpg(Pid::from_raw(self.child.id() as i32), Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

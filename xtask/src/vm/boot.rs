//! Boots a guest, reads its console, and tells a guest that never came up from a job that failed.

use std::{
    fs::File,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::{
    job::{End, Job},
    qemu,
};

/// TCG boots in a few seconds; on a loaded host it takes several times as long.
const BOOT_TIMEOUT: Duration = Duration::from_secs(180);
/// The limit for a guest that leaves the CPUs to others.
const YIELDING_BOOT_TIMEOUT: Duration = Duration::from_secs(600);
const BOOTS: u32 = 3;

/// A guest that is about to run a job.
pub(super) struct Guest<'a> {
    pub job: &'a Job,
    /// The directory where QEMU was unpacked.
    pub qemu: &'a Path,
    pub vmlinuz: &'a Path,
    pub initrd: &'a Path,
    pub log: &'a Path,
}

/// The result of a boot.
enum Attempt {
    Ran(End),
    /// The guest did not come up, which is not the job's fault and worth another boot.
    NotReady(String),
}

impl Guest<'_> {
    /// Runs the job, and boots again if a guest does not come up.
    pub fn run(&self, on_line: &mut dyn FnMut(&str)) -> Result<End> {
        let kernel = self.job.kernel;
        let mut why = String::new();
        for attempt in 1..=BOOTS {
            match Console::open(self)?.follow(self.job, on_line)? {
                Attempt::Ran(end) => return Ok(end),
                Attempt::NotReady(reason) => {
                    println!("lab: boot {attempt} of {BOOTS} of kernel {kernel} failed: {reason}");
                    why = reason;
                }
            }
        }
        bail!(
            "booting kernel {kernel} in QEMU failed {BOOTS} times: {why}; its console is in {}",
            self.log.display()
        )
    }
}

/// Kills QEMU when this is dropped.
struct Qemu(Child);

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The console of a running guest, and its log.
struct Console<'a> {
    _qemu: Qemu,
    lines: Receiver<String>,
    log: File,
    path: &'a Path,
}

impl<'a> Console<'a> {
    /// Starts QEMU.
    fn open(guest: &Guest<'a>) -> Result<Self> {
        let path = guest.log;
        let log = File::create(path).with_context(|| format!("creating {}", path.display()))?;
        let errors = log
            .try_clone()
            .with_context(|| format!("opening {}", path.display()))?;
        let child = qemu::command(guest.job, guest.qemu, guest.vmlinuz, guest.initrd)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .with_context(|| format!("starting QEMU from {}", guest.qemu.display()))?;
        let mut qemu = Qemu(child);
        let console = qemu.0.stdout.take().context("reading QEMU's console")?;
        let (sender, lines) = mpsc::channel();
        // The thread ends when QEMU closes its end.
        std::thread::spawn(move || {
            for line in BufReader::new(console).split(b'\n').map_while(Result::ok) {
                if sender.send(clean(&line)).is_err() {
                    break;
                }
            }
        });
        Ok(Self {
            _qemu: qemu,
            lines,
            log,
            path,
        })
    }

    /// Reads the console until the job or the guest ends.
    fn follow(mut self, job: &Job, on_line: &mut dyn FnMut(&str)) -> Result<Attempt> {
        let start = Instant::now();
        let boot_timeout = if job.yields {
            YIELDING_BOOT_TIMEOUT
        } else {
            BOOT_TIMEOUT
        };
        let mut deadline = start + boot_timeout.min(job.timeout);
        let mut ready = false;
        let mut panic = None;
        let how = loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = match self.lines.recv_timeout(left) {
                Ok(line) => line,
                Err(RecvTimeoutError::Disconnected) => {
                    break panic.unwrap_or_else(|| "QEMU ended early".to_owned());
                }
                Err(RecvTimeoutError::Timeout) if ready => {
                    break format!("not done after {} s", job.timeout.as_secs());
                }
                Err(RecvTimeoutError::Timeout) => {
                    break format!("not ready after {} s", boot_timeout.as_secs());
                }
            };
            writeln!(self.log, "{line}")
                .with_context(|| format!("writing {}", self.path.display()))?;
            on_line(&line);
            match protocol(&line) {
                Some(Message::Ready) => {
                    ready = true;
                    deadline = start + job.timeout;
                }
                Some(Message::Done(rc)) => return Ok(Attempt::Ran(End::Done(rc))),
                None => {}
            }
            if line.contains("Kernel panic") {
                panic = Some(line);
            }
        };
        Ok(match ready {
            true => Attempt::Ran(End::Died(how)),
            false => Attempt::NotReady(how),
        })
    }
}

/// Returns a console line without carriage returns and without the escape sequences of the firmware, which would
/// clear the user's terminal.
fn clean(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let mut out = String::new();
    let mut chars = text.chars().filter(|c| *c != '\r');
    while let Some(c) = chars.next() {
        if c != '\u{1b}' {
            out.push(c);
        } else if chars.next() == Some('[') {
            // A sequence ends at its first letter.
            chars.by_ref().find(|c| c.is_ascii_alphabetic());
        }
    }
    out
}

#[derive(Debug, PartialEq, Eq)]
enum Message {
    Ready,
    Done(i32),
}

/// Recognises the two lines of the guest's protocol that concern the boot.
fn protocol(line: &str) -> Option<Message> {
    // The marker need not be at the start of a line: firmware and kernel leave unfinished lines on the console.
    let (_, message) = line.split_once("@@ guest ")?;
    match message.trim_end().split_once(" rc=") {
        None => (message.trim_end() == "ready").then_some(Message::Ready),
        Some(("done", rc)) => rc.parse().ok().map(Message::Done),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_console_loses_its_escapes() {
        assert_eq!(
            clean(b"\x1bc\x1b[?7l\x1b[2J@@ guest ready\r"),
            "@@ guest ready"
        );
        assert_eq!(clean(b"plain [text]"), "plain [text]");
    }

    #[test]
    fn the_protocol_is_read_past_noise() {
        assert_eq!(protocol("\u{1b}[0m@@ guest ready"), Some(Message::Ready));
        assert_eq!(protocol("@@ guest done rc=3"), Some(Message::Done(3)));
        assert_eq!(protocol("@@ guest done rc=x"), None);
        assert_eq!(protocol("@@ end kernel rc=1"), None);
        assert_eq!(protocol("the guest ready"), None);
    }
}

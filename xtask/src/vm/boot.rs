//! QEMU: starts the guest, reads its console, and tells a guest that never came up from a job that failed.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::Job;
use super::packages::KernelDir;

/// TCG boots in a few seconds; a loaded host takes several times that.
const BOOT_TIMEOUT: Duration = Duration::from_secs(180);
const BOOTS: u32 = 3;

/// How a job that got to run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The script returned this.
    Done(i32),
    /// The guest died or hung after it was ready; the text says how.
    Died(String),
}

enum Attempt {
    Ran(End),
    /// Not the job's fault: worth another boot.
    NotReady(String),
}

pub(super) fn boot(
    job: &Job,
    qemu: &Path,
    kernel: &KernelDir,
    initrd: &Path,
    log: &Path,
    on_line: &mut dyn FnMut(&str),
) -> Result<End> {
    let mut why = String::new();
    for attempt in 1..=BOOTS {
        match once(job, qemu, kernel, initrd, log, on_line)? {
            Attempt::Ran(end) => return Ok(end),
            Attempt::NotReady(reason) => {
                println!(
                    "lab: boot {attempt} of {BOOTS} of kernel {} failed: {reason}",
                    job.kernel
                );
                why = reason;
            }
        }
    }
    bail!(
        "booting kernel {} in QEMU failed {BOOTS} times: {why}; its console is in {}",
        job.kernel,
        log.display()
    )
}

/// Takes QEMU down with us whichever way we leave.
struct Qemu(Child);

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn once(
    job: &Job,
    qemu: &Path,
    kernel: &KernelDir,
    initrd: &Path,
    log: &Path,
    on_line: &mut dyn FnMut(&str),
) -> Result<Attempt> {
    let mut log_file = File::create(log).with_context(|| format!("creating {}", log.display()))?;
    let errors = log_file
        .try_clone()
        .with_context(|| format!("opening {}", log.display()))?;
    let mut command = command(job, qemu, &kernel.vmlinuz, initrd);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(errors);
    let child = command
        .spawn()
        .with_context(|| format!("starting QEMU from {}", qemu.display()))?;
    let mut qemu = Qemu(child);
    let console = qemu.0.stdout.take().context("reading QEMU's console")?;
    let (sender, lines) = mpsc::channel();
    // Ends by itself when QEMU closes its end.
    std::thread::spawn(move || {
        for line in BufReader::new(console).split(b'\n').map_while(Result::ok) {
            if sender.send(clean(&line)).is_err() {
                break;
            }
        }
    });

    let start = Instant::now();
    let boot_deadline = start + BOOT_TIMEOUT.min(job.timeout);
    let mut ready = false;
    let mut panic = None;
    loop {
        let deadline = if ready {
            start + job.timeout
        } else {
            boot_deadline
        };
        let died = match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                writeln!(log_file, "{line}")
                    .with_context(|| format!("writing {}", log.display()))?;
                on_line(&line);
                if line.contains("Kernel panic") {
                    panic = Some(line.clone());
                }
                match protocol(&line) {
                    Some(Message::Ready) => ready = true,
                    Some(Message::Done(rc)) => return Ok(Attempt::Ran(End::Done(rc))),
                    None => {}
                }
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => {
                panic.unwrap_or_else(|| "QEMU ended early".to_owned())
            }
            Err(RecvTimeoutError::Timeout) if ready => {
                format!("not done after {} s", job.timeout.as_secs())
            }
            Err(RecvTimeoutError::Timeout) => {
                format!("not ready after {} s", BOOT_TIMEOUT.as_secs())
            }
        };
        return Ok(if ready {
            Attempt::Ran(End::Died(died))
        } else {
            Attempt::NotReady(died)
        });
    }
}

/// Two taps on a bridge, in a network namespace that ends with QEMU.
const TAPS: &str = r#"set -e
echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6
ip link add wire type bridge mcast_snooping 0
for end in a b; do
    ip tuntap add dev $end mode tap multi_queue
    ip link set dev $end master wire up
done
ip link set dev wire up
exec "$@""#;

/// One end of the wire between the two NICs, and what that means for its NIC. A hub, which needs no privilege,
/// has one queue for each.
fn wire(name: &str, queues: Option<u32>) -> (String, String) {
    match queues {
        None => (format!("hubport,hubid=0,id={name}"), String::new()),
        Some(queues) => (
            format!("tap,id={name},ifname={name},script=no,downscript=no,queues={queues}"),
            // Of each queue one each way, of configuration and of control.
            format!(",mq=on,vectors={}", 2 * queues + 2),
        ),
    }
}

fn command(job: &Job, qemu: &Path, vmlinuz: &Path, initrd: &Path) -> Command {
    // By its own loader, with its own libraries: it runs where it was unpacked.
    let loader = qemu.join("lib64/ld-linux-x86-64.so.2");
    let mut command = match job.queues {
        None => Command::new(loader),
        Some(_) => {
            let mut command = Command::new("unshare");
            command.args(["--net", "sh", "-c", TAPS, "sh"]).arg(loader);
            command
        }
    };
    let libraries = qemu.join("usr/lib/x86_64-linux-gnu");
    command
        .arg("--library-path")
        .arg(&libraries)
        .arg(qemu.join("usr/bin/qemu-system-x86_64"))
        .arg("-L")
        .arg(qemu.join("usr/share/qemu"))
        .arg("-L")
        .arg(qemu.join("usr/share/seabios"))
        .env("QEMU_MODULE_DIR", libraries.join("qemu"));
    if job.icount {
        command.args(["-accel", "tcg", "-smp", "1"]);
        // What comes by a tap takes the host's time: a clock that jumps would have passed every timer of TCP by then.
        let sleep = if job.queues.is_some() { "on" } else { "off" };
        command.args(["-icount", &format!("shift=0,sleep={sleep}")]);
    } else {
        // KVM is not tried: it opens on hosts where a stock kernel then hangs. Multi-threaded TCG
        // panics a guest now and then while it patches its own code.
        command.args(["-accel", "tcg,thread=single", "-smp", "2"]);
    }
    command.args(["-cpu", job.cpu]);
    command.args([
        "-m",
        "4096",
        "-nographic",
        "-no-reboot",
        "-nodefaults",
        "-serial",
        "stdio",
    ]);
    for (name, last) in [("a", "0a"), ("b", "0b")] {
        let (wire, queues) = wire(name, job.queues);
        // Without `romfile=` it would look for a boot ROM.
        let nic =
            format!("virtio-net-pci,netdev={name},mac=52:54:00:00:00:{last},romfile={queues}");
        command.args(["-netdev", &wire, "-device", &nic]);
    }
    // TCG keeps its translation of a program by virtual address: where those are random, each process
    // is translated anew, which takes most of a short one's time.
    let append = "console=ttyS0 quiet loglevel=3 panic=-1 mitigations=off norandmaps";
    command
        .arg("-kernel")
        .arg(vmlinuz)
        .arg("-initrd")
        .arg(initrd)
        .args(["-append", append]);
    command
}

/// A console line without carriage returns and the escape sequences of the firmware, which would
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

/// Reads the two lines of the guest's protocol that concern the boot.
fn protocol(line: &str) -> Option<Message> {
    // Not at the start: firmware and kernel leave unfinished lines on the console.
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

//! The lab: a Debian kernel booted in QEMU, with iproute2, Docker and our binaries in an initramfs.
//!
//! Nothing is installed on the host: QEMU, kernels and guest programs are Debian packages unpacked
//! into the cache. After the first run no network is needed.

mod boot;
mod image;
mod packages;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

pub use boot::End;

use crate::sh;

/// The two kernels vlanfast promises to run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kernel {
    /// Debian 12's own.
    #[value(name = "6.1")]
    V6_1,
    /// Debian 13's, which Debian 12 offers as well.
    #[value(name = "6.12")]
    V6_12,
}

impl Kernel {
    pub const ALL: [Kernel; 2] = [Kernel::V6_1, Kernel::V6_12];

    /// The package that always depends on the newest image of this series.
    fn metapackage(self) -> &'static str {
        match self {
            Kernel::V6_1 => "linux-image-cloud-amd64",
            Kernel::V6_12 => "linux-image-6.12-cloud-amd64",
        }
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kernel::V6_1 => "6.1",
            Kernel::V6_12 => "6.12",
        })
    }
}

/// A file of the host that the guest gets.
#[derive(Clone, Debug)]
pub struct File {
    /// Where it is on the host. Executables lose their debug information on the way, and bring the
    /// shared libraries that the guest lacks.
    pub from: PathBuf,
    /// Where it goes, below the guest's `/lab`: `bin/vlanfast` is on the `PATH` there.
    pub to: String,
}

impl File {
    pub fn new(from: impl Into<PathBuf>, to: impl Into<String>) -> File {
        File {
            from: from.into(),
            to: to.into(),
        }
    }
}

/// What one boot of the guest does.
#[derive(Clone, Debug)]
pub struct Job {
    /// Names the log, `target/lab/NAME.log`. Two jobs that run at once need two names.
    pub name: String,
    pub kernel: Kernel,
    pub files: Vec<File>,
    /// Run by `sh` (dash) as root, in `/lab`, when everything is mounted and loaded.
    pub script: String,
    /// From the start of QEMU to the end of the script.
    pub timeout: Duration,
    /// The guest's clock counts instructions (1 ns each) on one CPU, and jumps to the next timer where there is
    /// nothing to do: computing takes longer, waiting no time, and a figure can be repeated. With taps, waiting takes
    /// as long as on the host.
    pub icount: bool,
    /// QEMU's name for the CPU.
    pub cpu: &'static str,
    /// How many queues each NIC has. More than the one that a hub offers, and NICs that merge packets, come from taps
    /// in a network namespace of their own, for which root is needed ([`ensure_taps`]).
    pub queues: Option<u32>,
}

impl Job {
    pub fn new(name: impl Into<String>, kernel: Kernel, script: impl Into<String>) -> Job {
        Job {
            name: name.into(),
            kernel,
            files: Vec::new(),
            script: script.into(),
            timeout: Duration::from_secs(900),
            icount: false,
            // It has no ERMS and no SMAP, under TCG the dearest way to copy memory, and to reach that of a process.
            cpu: "Nehalem",
            queues: None,
        }
    }
}

/// How a job ended, and where its whole console is.
#[derive(Debug)]
pub struct Outcome {
    pub end: End,
    pub log: PathBuf,
}

/// Refuses what needs taps where there can be none.
pub fn ensure_taps(command: &str) -> Result<()> {
    if sh::is_root() && Path::new("/dev/net/tun").exists() {
        return Ok(());
    }
    bail!(
        "NICs with several queues, or that merge packets, need taps, which need root and /dev/net/tun: run \
         `modprobe tun`, then `{command}` as root"
    )
}

/// Runs a job in a fresh guest and hands every line of its console to `on_line` as it comes.
///
/// The guest has 2 CPUs (one where its clock counts instructions), 4 GB, iproute2, ping, arping, ndisc6,
/// traceroute, ethtool, bpftool, tcpdump, dnsmasq, avahi, keepalived, Docker and Prometheus; busybox is
/// everything else. Its network:
///
/// - `eth0` (52:54:00:00:00:0a) and `eth1` (52:54:00:00:00:0b) are two virtio NICs joined by a wire
///   inside QEMU, both down: a trunk with a real driver, and what is behind it.
/// - `dockerd` is not started. `/lab/image.tar` is for `docker import`: busybox and `/sbin/my_init`.
///
/// Lines that start with `@@ ` are the protocol: `@@ guest ready` before the script starts and
/// `@@ guest done rc=N` after it. A script may print `@@ begin NAME` and `@@ end NAME rc=N`; they are
/// passed on unread. A guest that isn't ready within three minutes is booted again, three times at most,
/// so `on_line` can see the lines of a boot that failed.
///
/// `Err` means the lab didn't work (no package, no QEMU, no boot). A script that failed, hung or took
/// the guest down with it is an `Ok` with the [`End`] that says so.
///
/// In the script, enter a namespace with `nsenter --net=/run/netns/NAME`: `ip netns exec` remounts
/// `/sys` and hides the BPF filesystem.
pub fn run(job: &Job, mut on_line: impl FnMut(&str)) -> Result<Outcome> {
    let dir = sh::workspace().join("target/lab");
    std::fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
    // Two runs at once must not build the same cache; the lock goes with the file.
    let lock = packages::lock()?;
    let qemu = packages::qemu()?;
    let kernel = packages::kernel(job.kernel)?;
    let initrd = image::build(job, &kernel, &dir.join(format!("{}.cpio", job.name)))?;
    drop(lock);
    let log = dir.join(format!("{}.log", job.name));
    let end = boot::boot(job, &qemu, &kernel, &initrd, &log, &mut on_line);
    // A third of a gigabyte that the next run writes anew; keeping it when it failed helps nobody.
    let _ = std::fs::remove_file(&initrd);
    Ok(Outcome { end: end?, log })
}

//! The jobs of a guest, and the ways in which they end.

use std::{fmt, path::PathBuf, time::Duration};

/// The two kernels on which vlanfast promises to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Kernel {
    /// The kernel of Debian 12.
    #[value(name = "6.1")]
    V6_1,
    /// The kernel of Debian 13, which Debian 12 offers as well.
    #[value(name = "6.12")]
    V6_12,
}

impl Kernel {
    pub const ALL: [Kernel; 2] = [Kernel::V6_1, Kernel::V6_12];

    /// Returns the package that always depends on the newest image of this series.
    pub(super) fn metapackage(self) -> &'static str {
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

/// A file of the host that is copied to the guest.
#[derive(Clone, Debug)]
pub struct File {
    /// The path on the host. Executables are copied without debug information, together with the shared libraries
    /// that the guest lacks.
    pub from: PathBuf,
    /// The path below the guest's `/lab`: `bin/vlanfast` is on the `PATH` there.
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

/// The work of one boot of the guest.
#[derive(Clone, Debug)]
pub struct Job {
    /// The name of the log, `target/lab/NAME.log`. Two jobs that run at once need two names.
    pub name: String,
    pub kernel: Kernel,
    pub files: Vec<File>,
    /// The script, run by `sh` (dash) as root in `/lab`, when everything is mounted and loaded.
    pub script: String,
    /// The time limit from the start of QEMU to the end of the script.
    pub timeout: Duration,
    /// Whether the guest's clock counts instructions (1 ns each) on one CPU, and jumps to the next timer when the
    /// guest is idle: computing takes longer, waiting takes no time, and measurements can be repeated. With taps,
    /// waiting takes as long as on the host.
    pub icount: bool,
    /// Whether the guest leaves the host's CPUs to other processes. This is for guests with the counting clock, which
    /// do not notice.
    pub yields: bool,
    /// QEMU's name for the CPU.
    pub cpu: &'static str,
    /// The number of queues of each NIC. More than the one queue that a hub offers, and NICs that merge packets, need
    /// taps in a network namespace of their own, and therefore root ([`ensure_taps`]).
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
            yields: false,
            // The model lacks ERMS and SMAP, which under TCG are the most expensive ways to copy and to access a
            // process's memory.
            cpu: "Nehalem",
            queues: None,
        }
    }
}

/// How a job ended that was started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The script returned this.
    Done(i32),
    /// The guest died or hung after it was ready; the text describes how.
    Died(String),
}

/// How a job ended, and the path of its whole console log.
#[derive(Debug)]
pub struct Outcome {
    pub end: End,
    pub log: PathBuf,
}

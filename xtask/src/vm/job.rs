//! What a guest is asked to do, and how that may end.

use std::{fmt, path::PathBuf, time::Duration};

/// The two kernels vlanfast promises to run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
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
    /// The guest leaves the host's CPUs to whatever else wants them. For guests by the counting clock, which do not
    /// notice.
    pub yields: bool,
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
            yields: false,
            // It has no ERMS and no SMAP, under TCG the dearest way to copy memory, and to reach that of a process.
            cpu: "Nehalem",
            queues: None,
        }
    }
}

/// How a job that got to run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The script returned this.
    Done(i32),
    /// The guest died or hung after it was ready; the text says how.
    Died(String),
}

/// How a job ended, and where its whole console is.
#[derive(Debug)]
pub struct Outcome {
    pub end: End,
    pub log: PathBuf,
}

//! The command line of `cargo xtask test`.

use super::programs;
use crate::vm::Kernel;

/// A level of tests, in the order of their costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
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

impl Level {
    pub const ALL: [Self; 4] = [Self::Host, Self::Kernel, Self::Netns, Self::Vm];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Kernel => "kernel",
            Self::Netns => "netns",
            Self::Vm => "vm",
        }
    }
}

/// The options of `cargo xtask test`.
#[derive(clap::Args)]
pub struct Args {
    /// What to run; everything if not given
    pub levels: Vec<Level>,
    /// Don't fail when tests were skipped
    #[arg(long)]
    pub allow_skip: bool,
    /// Run the vm level on this kernel only
    #[arg(long)]
    pub kernel: Option<Kernel>,
    /// Test the optimised binary, as it is released
    #[arg(long)]
    pub release: bool,
    /// Run this program of the vm level only
    #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(programs::names()))]
    pub program: Option<String>,
    /// Run the vm level's program for NICs with two queues, and no other; root
    #[arg(long, conflicts_with = "program")]
    pub queues: bool,
    /// Run only the tests whose names contain this
    #[arg(long)]
    pub filter: Option<String>,
}

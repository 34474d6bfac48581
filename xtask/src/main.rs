//! `cargo xtask`: builds, checks, tests and measures. Each command is a file or a directory.

mod bench;
mod check;
mod demo;
mod ebpf;
mod layout;
mod setup;
mod sh;
mod test;
mod toolchain;
mod vm;

use std::process::ExitCode;

use clap::Parser;

/// Builds, checks, tests and shows vlanfast
#[derive(Parser)]
#[command(name = "cargo xtask")]
enum Command {
    /// Install what is missing to build and test (Debian, Ubuntu)
    Setup,
    /// Build the BPF object alone
    BuildEbpf,
    /// Build the vlanfast binary, with the object inside
    Build {
        /// Optimised
        #[arg(long)]
        release: bool,
    },
    /// Check formatting, lints and the layout of the code
    Check,
    /// Run the tests: level host, kernel, netns and vm
    Test(test::Args),
    /// Show it at work in a virtual machine
    Demo(demo::Args),
    /// Measure what a packet costs, and write docs/benchmarks.md
    Bench(bench::Args),
}

fn main() -> ExitCode {
    let result = match Command::parse() {
        Command::Setup => setup::setup(),
        Command::BuildEbpf => ebpf::build_object(ebpf::Layout::Current).map(drop),
        Command::Build { release } => ebpf::build(release).map(drop),
        Command::Check => check::check(),
        Command::Test(args) => test::test(&args),
        Command::Demo(args) => demo::demo(&args),
        Command::Bench(args) => bench::bench(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

//! The program `vlanfast`. Each verb of the command line is a file in `cmd`.

use std::process::ExitCode;

use clap::Parser;
use vlanfast::{
    cli::{Cli, Command},
    cmd, error,
};

fn main() -> ExitCode {
    match run(&Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => error::report(&failure),
    }
}

// One thread is enough, and what belongs to a thread (such as its network namespace) stays what it was.
#[tokio::main(flavor = "current_thread")]
async fn run(command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Attach(args) => cmd::attach::run(args).await,
        Command::Detach(args) => cmd::detach::run(args).await,
        Command::Status(args) => cmd::status::run(args).await,
        Command::Endpoints(args) => cmd::endpoints::run(args).await,
        Command::Counters(args) => cmd::counters::run(args).await,
        Command::Flows(args) => cmd::flows::run(args).await,
    }
}

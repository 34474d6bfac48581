//! `cargo xtask demo`: the tutorial's network in the lab, with vlanfast on its trunk.

use std::time::Instant;

use anyhow::{Result, bail};

use crate::{
    ebpf,
    setup::{self, Need},
    vm::{self, End, File, Job, Kernel},
};

#[derive(clap::Args)]
pub struct Args {
    /// The kernel to show it on
    #[arg(long, value_enum, default_value_t = Kernel::V6_12)]
    kernel: Kernel,
}

pub fn demo(args: &Args) -> Result<()> {
    let started = Instant::now();
    setup::ensure(Need::Build)?;
    setup::ensure(Need::Lab)?;
    let binary = ebpf::build(false)?;
    let mut job = Job::new("demo", args.kernel, include_str!("../guest/demo.sh"));
    job.files = vec![File::new(binary, "bin/vlanfast")];

    step(started, &format!("booting Linux {} in QEMU", args.kernel));
    let mut shown = false;
    let outcome = vm::run(&job, |line| {
        if line == "@@ guest ready" {
            step(started, "the guest is up");
        } else if let Some(text) = line.strip_prefix("@@ step ") {
            step(started, text);
        } else if line.starts_with("@@ begin show") {
            step(
                started,
                "the tutorial's network is up; what follows comes from the guest",
            );
            shown = true;
        } else if line.starts_with("@@ end show") {
            shown = false;
        } else if shown {
            println!("    {line}");
        }
    })?;
    match outcome.end {
        End::Done(0) => {
            step(started, "done");
            Ok(())
        }
        end => bail!(
            "the demo failed: {end:?}; the guest's console is in {}",
            outcome.log.display()
        ),
    }
}

fn step(started: Instant, text: &str) {
    println!("[{:3} s] {text}", started.elapsed().as_secs());
}

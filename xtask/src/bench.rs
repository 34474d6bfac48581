//! `cargo xtask bench`: measures in the lab, and writes docs/benchmarks.md.

mod chart;
mod compare;
mod figures;
mod page;
mod tables;

use std::{
    fs,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{
    ebpf,
    setup::{self, Need},
    sh,
    vm::{self, End, File, Job, Kernel},
};
use figures::{Figures, Message};
use tables::Table;

#[derive(clap::Args)]
pub struct Args {
    /// Fewer rounds and fewer containers; writes nothing below docs/
    #[arg(long)]
    quick: bool,
    /// One table alone, printed and not written; may be given several times
    #[arg(long, value_name = "TABLE")]
    only: Vec<String>,
    /// With --only: vlanfast on Linux 6.1 as well where a whole run measures the kernel alone
    #[arg(long, requires = "only")]
    older: bool,
    /// Fail if a figure in instructions differs by more than 1 % from this JSON of an earlier run
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
}

pub fn bench(args: &Args) -> Result<()> {
    let started = Instant::now();
    let tables = tables::chosen(&args.only)?;
    if tables.iter().any(|table| table.taps) {
        vm::ensure_taps("cargo xtask bench")?;
    }
    setup::ensure(Need::Build)?;
    setup::ensure(Need::Lab)?;
    // The file is read before it is written anew, because it may be the page's own.
    let earlier = args.compare.as_deref().map(compare::read).transpose()?;
    let programs = Programs::build()?;
    let mut figures = Figures::default();
    let (native, mut lab): (Vec<&Table>, Vec<&Table>) =
        tables.iter().partition(|table| table.native);
    // Each kind of wire needs a guest of its own.
    lab.sort_by_key(|table| table.taps);
    for kernel in [Kernel::V6_12, Kernel::V6_1] {
        for tables in lab.chunk_by(|one, next| one.taps == next.taps) {
            measure(&programs, kernel, tables, args, &mut figures, started)?;
        }
    }
    if !native.is_empty() {
        step(started, "on this machine's kernel");
        measure_natively(&programs, &native, args.quick, &mut figures, started)?;
    }
    for table in &tables {
        println!("\n{}\n\n{}", table.title, table.markdown(&figures));
    }
    if !args.quick && args.only.is_empty() {
        page::write(&figures)?;
        println!("written to docs/benchmarks.md and docs/benchmarks.json");
    }
    step(started, "done");
    earlier.map_or(Ok(()), |earlier| compare::compare(&earlier, &figures))
}

/// The programs that run in the guest.
struct Programs {
    vlanfast: PathBuf,
    bench: PathBuf,
    object: PathBuf,
}

impl Programs {
    fn build() -> Result<Self> {
        // The benchmark measures the release build, which is what ships.
        let vlanfast = ebpf::build(true)?;
        let object = ebpf::build_bench_object()?;
        sh::step("benchmark");
        let mut cargo = Command::new("cargo");
        cargo.current_dir(sh::workspace()).args([
            "build",
            "--locked",
            "--release",
            "--package",
            "vlanfast-bench",
        ]);
        sh::run(&mut cargo)?;
        let bench = vlanfast.with_file_name("vlanfast-bench");
        Ok(Self {
            vlanfast,
            bench,
            object,
        })
    }
}

/// Runs tables on this machine, as root, in namespaces of its own.
fn measure_natively(
    programs: &Programs,
    tables: &[&Table],
    quick: bool,
    figures: &mut Figures,
    started: Instant,
) -> Result<()> {
    let release = sh::capture(Command::new("uname").arg("-r"))?;
    figures.native = release.trim().to_owned();
    let mut command = sh::as_root("the benchmark")?;
    // The run gets a BPF file system of its own: there may be none, and the host's pins must not be visible.
    let mounted = r#"mount -t bpf bpf /sys/fs/bpf && exec "$0" "$@""#;
    command
        .arg(format!("VLANFAST_BIN={}", programs.vlanfast.display()))
        .arg(format!("BENCH_OBJECT={}", programs.object.display()))
        .args(["unshare", "--mount", "sh", "-c", mounted])
        .arg(&programs.bench)
        .arg("--native")
        .args(quick.then_some("--quick"))
        .args(tables.iter().map(|table| table.name));
    for line in sh::capture(&mut command)?.lines() {
        match Message::parse(line) {
            Some(Message::Step(text)) => step(started, text),
            Some(Message::Figure(figure)) => figures.add(Kernel::V6_12, figure),
            _ => {}
        }
    }
    Ok(())
}

/// Boots one kernel for the tables that need the same wire. On the older kernel, normally only the kernel is
/// measured, and vlanfast where the project promises a figure.
fn measure(
    programs: &Programs,
    kernel: Kernel,
    tables: &[&Table],
    args: &Args,
    figures: &mut Figures,
    started: Instant,
) -> Result<()> {
    let rows = |table: &Table| match kernel {
        Kernel::V6_12 => "all",
        Kernel::V6_1 if table.promised || args.older => "vlanfast",
        Kernel::V6_1 => "kernel",
    };
    let mut script = "set -e\n\
         export VLANFAST_BIN=/lab/bin/vlanfast BENCH_OBJECT=/lab/bench.o\n\
         echo \"@@ kernel $(uname -r)\"\n"
        .to_owned();
    for tables in tables.chunk_by(|one, next| rows(one) == rows(next)) {
        let quick = if args.quick { "--quick" } else { "" };
        let names: Vec<_> = tables.iter().map(|table| table.name).collect();
        script += &format!(
            "/lab/bin/vlanfast-bench {quick} --rows {} {} 2>&1\n",
            rows(tables[0]),
            names.join(" ")
        );
    }
    let mut job = Job::new(format!("bench-{kernel}"), kernel, script);
    job.icount = true;
    job.queues = tables[0].taps.then_some(2);
    // Every CPU feature is enabled, so that the kernel takes the code paths that it takes on a modern machine.
    job.cpu = "max";
    job.timeout = Duration::from_secs(3600);
    job.files = vec![
        File::new(&programs.vlanfast, "bin/vlanfast"),
        File::new(&programs.bench, "bin/vlanfast-bench"),
        File::new(&programs.object, "bench.o"),
    ];
    step(started, &format!("booting Linux {kernel}"));
    let outcome = vm::run(&job, |line| match Message::parse(line) {
        Some(Message::Step(text)) => step(started, text),
        Some(Message::Kernel(release)) => figures.ran_on(release),
        Some(Message::Figure(figure)) => figures.add(kernel, figure),
        None => {}
    })?;
    match outcome.end {
        End::Done(0) => Ok(()),
        end => {
            let log = fs::read_to_string(&outcome.log)
                .with_context(|| format!("failed to read {}", outcome.log.display()))?;
            let last: Vec<&str> = log.lines().rev().take(12).collect();
            last.iter().rev().for_each(|line| println!("    {line}"));
            bail!(
                "the benchmark failed on Linux {kernel}: {end:?}; the guest's console is in {}",
                outcome.log.display()
            )
        }
    }
}

fn step(started: Instant, text: &str) {
    println!("[{:4} s] {text}", started.elapsed().as_secs());
}

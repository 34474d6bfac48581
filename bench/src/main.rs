//! Measures what a packet costs and prints every figure on a line for `cargo xtask bench` to read.
//!
//! Under `-icount` the guest's clock counts instructions, 1 ns each, so a duration is a number of
//! instructions there. On a real machine it is a duration.

mod bare_shortcut;
mod bench;
mod containers;
mod contender;
mod frame;
mod generator;
mod measure;
mod netns;
mod one_container;
mod report;
mod rows;
mod storm;
mod tables;

use anyhow::{Context, Result, bail};
use bench::Bench;
use clap::Parser;
use generator::Generator;
use measure::Effort;
use rows::Rows;

/// Run by `cargo xtask bench`, as root.
#[derive(Parser)]
struct Args {
    /// Fewer rounds and fewer containers
    #[arg(long)]
    quick: bool,
    /// Which rows of the tables
    #[arg(long, value_enum, default_value_t = Rows::All)]
    rows: Rows,
    /// By the clock of a real machine
    #[arg(long)]
    native: bool,
    /// What to measure, by the names of the tables
    tables: Vec<String>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let mut bench = Bench {
        generator: Generator::new()?,
        effort: Effort::new(args.quick, args.native),
        rows: args.rows,
    };
    for name in &args.tables {
        let Some((_, run)) = tables::ALL.iter().find(|(table, _)| table == name) else {
            bail!("there is no table {name}");
        };
        report::step(&format!("table {name}"));
        run(&mut bench).with_context(|| format!("failed to measure table {name}"))?;
    }
    Ok(())
}

//! Measures what a packet costs and prints every figure on a line for `cargo xtask bench` to read.
//!
//! Under `-icount` the guest's clock counts instructions, 1 ns each, so a duration is a number of
//! instructions there. On a real machine it is a duration.

mod bare;
mod contender;
mod crowd;
mod frame;
mod generator;
mod measure;
mod place;
mod report;
mod site;
mod storm;
mod tables;

use anyhow::{Context, Result, bail};
use clap::{Parser, ValueEnum};

use contender::Contender;
use generator::Generator;
use measure::Effort;

/// Run by `cargo xtask bench`, as root.
#[derive(Parser)]
struct Args {
    /// Fewer rounds and smaller crowds
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

/// How much of a table is measured. Each has what those before it have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Rows {
    /// What everything is compared with: the kernel alone.
    Kernel,
    Vlanfast,
    /// And what one might have in its place.
    All,
}

/// What every table measures with.
pub struct Bench {
    pub generator: Generator,
    pub effort: Effort,
    pub rows: Rows,
}

impl Bench {
    /// The rows of this run, of those that a table has.
    pub fn rows(&self, all: &[Contender]) -> Vec<Contender> {
        let wanted = |row: &Contender| row.belongs() <= self.rows;
        all.iter().copied().filter(wanted).collect()
    }
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

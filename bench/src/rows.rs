//! Which rows of a table a run measures.

use clap::ValueEnum;

/// How much of a table is measured. Each has what those before it have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Rows {
    /// What everything is compared with: the kernel alone.
    Kernel,
    Vlanfast,
    /// And what one might have in its place.
    All,
}

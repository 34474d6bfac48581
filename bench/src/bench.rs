//! What every table is measured with.

use crate::{contender::Contender, generator::Generator, measure::Effort, rows::Rows};

/// The generator, and how much is to be measured.
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

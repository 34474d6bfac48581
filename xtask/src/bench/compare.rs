//! Compares the figures of two runs.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{
    figures::Figures,
    tables::{ALL, grouped},
};

/// The relative difference that is allowed between two runs.
const TOLERANCE: f64 = 0.01;

/// The JSON that an earlier run wrote.
pub fn read(path: &Path) -> Result<Value> {
    let text =
        fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is not JSON", path.display()))
}

/// Names the figures in instructions that differ, of those that both runs have.
pub fn compare(earlier: &Value, figures: &Figures) -> Result<()> {
    let (mut compared, mut differ) = (0, 0);
    for figure in earlier["figures"].as_array().into_iter().flatten() {
        let word = |name: &str| figure[name].as_str().unwrap_or_default();
        let (name, row, column) = (word("table"), word("row"), word("column"));
        let counts = ALL
            .iter()
            .any(|table| table.name == name && table.unit.is_instructions());
        let (Some(before), Some(now), true) = (
            figure["value"].as_f64(),
            figures.value(name, row, column),
            counts,
        ) else {
            continue;
        };
        compared += 1;
        let change = now / before - 1.0;
        if change.abs() > TOLERANCE {
            differ += 1;
            let (before, now, percent) = (grouped(before), grouped(now), 100.0 * change);
            println!("{name}, {row}, {column}: {before} before, {now} now ({percent:+.1} %)");
        }
    }
    ensure!(compared > 0, "there is no figure to compare");
    ensure!(
        differ == 0,
        "{differ} of {compared} figures differ by more than 1 %"
    );
    println!("{compared} figures agree within 1 %");
    Ok(())
}

//! How things look: aligned, calm, and the same in `--json`.

use std::io::{self, Write};

use serde::Serialize;

/// Prints text. A closed pipe is an error that [`crate::error::report`] takes for success.
pub fn text(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// Prints a value as one line of JSON.
pub fn json(value: &impl Serialize) -> anyhow::Result<()> {
    text(&format!("{}\n", serde_json::to_string(value)?))
}

/// Numbers under their heads: every column to the right.
pub fn table(rows: &[Vec<String>]) -> String {
    columns(rows, |cell, width| format!("{cell:>width$}"))
}

/// Words beside words: every column to the left, indented.
pub fn list(rows: &[Vec<String>]) -> String {
    columns(rows, |cell, width| format!("{cell:<width$}"))
        .lines()
        .map(|line| format!("  {}\n", line.trim_end()))
        .collect()
}

fn columns(rows: &[Vec<String>], align: impl Fn(&str, usize) -> String) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<_> = (0..count)
        .map(|column| {
            rows.iter()
                .filter_map(|row| row.get(column))
                .map(String::len)
                .max()
        })
        .map(|width| width.unwrap_or(0))
        .collect();
    rows.iter()
        .map(|row| {
            let cells: Vec<_> = row
                .iter()
                .zip(&widths)
                .map(|(cell, &width)| align(cell, width))
                .collect();
            cells.join("  ") + "\n"
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::table;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["vlan", "bytes"], ["10", "123456"]].map(|row| row.map(String::from).to_vec());
        assert_eq!(table(&rows), "vlan   bytes\n  10  123456\n");
    }
}

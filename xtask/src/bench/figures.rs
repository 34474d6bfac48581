//! Reads the guest's output into tables.

use serde_json::{Value, json};

use crate::vm::Kernel;

/// A line of the guest that is meant for the benchmark.
#[derive(Debug, PartialEq)]
pub enum Message<'a> {
    Step(&'a str),
    /// The kernel's release.
    Kernel(&'a str),
    Figure(Figure),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    pub table: String,
    pub row: String,
    pub column: String,
    pub cell: Cell,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    Value(f64),
    /// The reason why there is no figure.
    None(String),
}

impl<'a> Message<'a> {
    pub fn parse(line: &'a str) -> Option<Self> {
        // The marker need not be at the start of a line: the kernel leaves unfinished lines on the console.
        let (_, message) = line.split_once("@@ ")?;
        let (word, rest) = message.trim_end().split_once(' ')?;
        match word {
            "step" => Some(Self::Step(rest)),
            "kernel" => Some(Self::Kernel(rest)),
            "figure" => Figure::parse(rest).map(Self::Figure),
            _ => None,
        }
    }
}

impl Figure {
    fn parse(text: &str) -> Option<Self> {
        let json: Value = serde_json::from_str(text).ok()?;
        let word = |name: &str| json[name].as_str().map(str::to_owned);
        let cell = match json["value"].as_f64() {
            Some(value) => Cell::Value(value),
            None => Cell::None(word("none")?),
        };
        Some(Self {
            table: word("table")?,
            row: word("row")?,
            column: word("column")?,
            cell,
        })
    }
}

/// The separator between the name of a row and its kernel, if that is not the newest.
const OLDER: &str = ", Linux ";

/// Returns a row's kernel; `None` stands for the newest.
pub fn kernel_of(row: &str) -> Option<&str> {
    row.split_once(OLDER).map(|(_, kernel)| kernel)
}

/// All measurements, in the order in which they arrived.
#[derive(Default)]
pub struct Figures {
    /// The releases of the measured kernels.
    pub kernels: Vec<String>,
    /// The release of the machine's own kernel, on which some tables are measured.
    pub native: String,
    all: Vec<Figure>,
}

impl Figures {
    /// Records a kernel's release; it may have had more than one guest.
    pub fn ran_on(&mut self, release: &str) {
        if !self.kernels.iter().any(|known| known == release) {
            self.kernels.push(release.to_owned());
        }
    }

    /// Adds a figure. Rows of the older kernel are marked.
    pub fn add(&mut self, kernel: Kernel, mut figure: Figure) {
        if kernel != Kernel::V6_12 {
            figure.row = format!("{}{OLDER}{kernel}", figure.row);
        }
        self.all.push(figure);
    }

    /// Returns the names of a table's rows or columns, in the order in which they first appeared.
    pub fn names(&self, table: &str, of: fn(&Figure) -> &str) -> Vec<&str> {
        let mut names = vec![];
        for name in self.table(table).map(of) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    pub fn cell(&self, table: &str, row: &str, column: &str) -> Option<&Cell> {
        self.table(table)
            .find(|figure| figure.row == row && figure.column == column)
            .map(|figure| &figure.cell)
    }

    pub fn value(&self, table: &str, row: &str, column: &str) -> Option<f64> {
        match self.cell(table, row, column)? {
            Cell::Value(value) => Some(*value),
            Cell::None(_) => None,
        }
    }

    fn table(&self, name: &str) -> impl Iterator<Item = &Figure> {
        self.all.iter().filter(move |figure| figure.table == name)
    }

    /// Returns all measurements as JSON.
    pub fn json(&self) -> Value {
        let rows = self.all.iter().map(|figure| {
            let mut row = json!({
                "table": figure.table, "row": figure.row, "column": figure.column,
            });
            match &figure.cell {
                Cell::Value(value) => row["value"] = json!((value * 1000.0).round() / 1000.0),
                Cell::None(why) => row["none"] = json!(why),
            }
            row
        });
        json!({ "kernels": self.kernels, "native": self.native, "figures": rows.collect::<Vec<_>>() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_guest_are_read_past_noise() {
        let line = r#"noise@@ figure {"table":"t","row":"r","column":"c","value":1.5}"#;
        let Some(Message::Figure(figure)) = Message::parse(line) else {
            panic!("{line} is a figure");
        };
        assert_eq!(figure.cell, Cell::Value(1.5));
        assert_eq!(Message::parse("@@ step a b\r"), Some(Message::Step("a b")));
        assert_eq!(Message::parse("@@ figure {}"), None);
        assert_eq!(Message::parse("@@ guest ready"), None);
    }

    #[test]
    fn rows_and_columns_keep_their_order() {
        let mut figures = Figures::default();
        for (kernel, row, column) in [
            (Kernel::V6_12, "b", "y"),
            (Kernel::V6_12, "a", "x"),
            (Kernel::V6_1, "b", "y"),
        ] {
            let cell = Cell::Value(1.0);
            let (table, row, column) = ("t".into(), row.into(), column.into());
            figures.add(
                kernel,
                Figure {
                    table,
                    row,
                    column,
                    cell,
                },
            );
        }
        assert_eq!(
            figures.names("t", |figure| &figure.row),
            ["b", "a", "b, Linux 6.1"]
        );
        assert_eq!(figures.names("t", |figure| &figure.column), ["y", "x"]);
    }
}

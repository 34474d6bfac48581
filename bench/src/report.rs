//! What is printed: lines that begin with `@@`, read by `cargo xtask bench`.

use serde_json::json;

/// Says what is being done.
pub fn step(text: &str) {
    println!("@@ step {text}");
}

/// One figure. Rows and columns are shown in the order in which they first come.
pub fn figure(table: &str, row: &str, column: &str, value: f64) {
    let figure = json!({ "table": table, "row": row, "column": column, "value": value });
    println!("@@ figure {figure}");
}

/// A cell that can't have a figure, and why.
pub fn none(table: &str, row: &str, column: &str, why: &str) {
    let figure = json!({ "table": table, "row": row, "column": column, "none": why });
    println!("@@ figure {figure}");
}

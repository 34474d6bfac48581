//! Finds files and functions that are too long.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use proc_macro2::extra::DelimSpan;
use syn::{
    Expr, Macro, MacroDelimiter,
    visit::{self, Visit},
};

/// The maximum of lines of a file.
const FILE: usize = 400;
/// The maximum of lines of a function, from its signature to its last brace, without the rows of tables.
const FUNCTION: usize = 60;

/// Returns every file and function of the repository that is too long, each on a line.
pub fn violations(workspace: &Path) -> Result<Vec<String>> {
    let mut wrong = vec![];
    for file in sources(workspace)? {
        let text = fs::read_to_string(&file)
            .with_context(|| format!("failed to read {}", file.display()))?;
        let shown = file
            .strip_prefix(workspace)
            .unwrap_or(&file)
            .display()
            .to_string();
        let lines = text.lines().count();
        if lines > FILE {
            wrong.push(format!(
                "{shown}: the file has {lines} lines, more than {FILE}: move a part of it into a module of its own"
            ));
        }
        let syntax = syn::parse_file(&text).with_context(|| format!("failed to parse {shown}"))?;
        let long = functions(&syntax)
            .into_iter()
            .filter(|function| function.lines > FUNCTION);
        wrong.extend(long.map(|Function { name, line, lines }| {
            format!(
                "{shown}:{line}: function `{name}` has {lines} lines of code, more than {FUNCTION}: \
                 give its steps names of their own"
            )
        }));
    }
    Ok(wrong)
}

struct Function {
    name: String,
    /// The line at which it begins.
    line: usize,
    lines: usize,
}

fn functions(file: &syn::File) -> Vec<Function> {
    let mut finder = Finder(vec![]);
    finder.visit_file(file);
    finder.0
}

struct Finder(Vec<Function>);

impl Finder {
    fn take(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let line = signature.fn_token.span.start().line;
        let mut rows = Rows(0);
        rows.visit_block(block);
        self.0.push(Function {
            name: signature.ident.to_string(),
            line,
            lines: block.brace_token.span.close().end().line + 1 - line - rows.0,
        });
    }
}

impl<'ast> Visit<'ast> for Finder {
    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.take(&function.sig, &function.block);
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.take(&function.sig, &function.block);
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_trait_item_fn(&mut self, function: &'ast syn::TraitItemFn) {
        if let Some(block) = &function.default {
            self.take(&function.sig, block);
        }
        visit::visit_trait_item_fn(self, function);
    }
}

/// Counts the lines between the brackets of array and `vec!` literals: rows of a table are data, and do not count as
/// code of a function.
struct Rows(usize);

impl Rows {
    fn add(&mut self, brackets: DelimSpan) {
        let between = brackets.close().start().line - brackets.open().start().line;
        self.0 += between.saturating_sub(1);
    }
}

impl<'ast> Visit<'ast> for Rows {
    fn visit_expr(&mut self, expression: &'ast Expr) {
        match expression {
            // Nested literals have been counted already.
            Expr::Array(array) => self.add(array.bracket_token.span),
            _ => visit::visit_expr(self, expression),
        }
    }

    fn visit_macro(&mut self, invoked: &'ast Macro) {
        let brackets = match &invoked.delimiter {
            MacroDelimiter::Bracket(brackets) if invoked.path.is_ident("vec") => brackets,
            _ => return,
        };
        self.add(brackets.span);
    }
}

/// Returns every Rust file below a directory, without build output.
fn sources(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = vec![];
    let entries = fs::read_dir(directory)
        .with_context(|| format!("failed to read {}", directory.display()))?;
    for entry in entries {
        let path = entry?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                files.extend(sources(&path)?);
            }
        } else if name.ends_with(".rs") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::functions;

    fn lines(text: &str) -> Vec<(String, usize, usize)> {
        let file = syn::parse_file(text).expect("the text is Rust");
        let found = functions(&file).into_iter();
        found
            .map(|found| (found.name, found.line, found.lines))
            .collect()
    }

    #[test]
    fn a_function_is_as_long_as_its_lines() {
        let text =
            "/// Doc\nfn one() {}\nimpl X {\n    fn two(\n    ) {\n        one()\n    }\n}\n";
        assert_eq!(lines(text), [("one".into(), 2, 1), ("two".into(), 4, 4)]);
    }

    #[test]
    fn rows_of_a_table_do_not_count() {
        let table = "fn f() {\n    for x in [\n        1,\n        2,\n    ] {\n        g(vec![\n            x,\n        ]);\n    }\n}\n";
        assert_eq!(lines(table), [("f".into(), 1, 7)]);
        let code = "fn f() {\n    format!(\n        \"{}\",\n        1\n    );\n}\n";
        assert_eq!(lines(code), [("f".into(), 1, 6)]);
    }
}

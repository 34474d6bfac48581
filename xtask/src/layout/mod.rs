//! The checks of the code's layout in `cargo xtask check`: layers, circles of modules, and sizes.

mod circles;
mod layers;
mod modules;
mod sizes;

use std::path::Path;

use anyhow::Result;
use circles::circles;
use modules::{Modules, Use};

/// Returns each violation on a line, with the file, the rule and the remedy.
pub fn violations(workspace: &Path) -> Result<Vec<String>> {
    let mut wrong = sizes::violations(workspace)?;
    for one in layers::CRATES {
        let modules = Modules::read(&workspace.join(one.root))?;
        let uses = modules.uses();
        wrong.extend(one.violations(&modules, &uses));
        wrong.extend(circles(&uses).iter().map(|circle| describe(circle)));
    }
    let root = format!("{}/", workspace.display());
    Ok(wrong.iter().map(|line| line.replace(&root, "")).collect())
}

fn describe(circle: &[&Use]) -> String {
    let name = |path: &str| match path {
        "" => "the crate's root".to_owned(),
        path => format!("`{path}`"),
    };
    let steps = circle.iter().map(|one| {
        format!(
            "{} uses `{}` of {}",
            name(&one.from.path),
            one.path,
            name(&one.to.path)
        )
    });
    format!(
        "{}: a circle of modules: {}: move what both need into a module below them",
        circle[0].from.file.display(),
        steps.collect::<Vec<_>>().join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sh;

    /// Reads this crate itself: imports, re-exports and calls by their full path count, and `pub(super)` and test
    /// code do not.
    #[test]
    fn uses_are_found_in_real_code() {
        let root = sh::workspace().join("xtask/src/main.rs");
        let modules = Modules::read(&root).expect("this crate can be read");
        let uses = modules.uses();
        let found = |from: &str, to: &str| {
            let mut uses = uses.iter();
            uses.any(|one| one.from.path == from && one.to.path == to)
        };
        assert!(found("", "check"), "a call by its path");
        assert!(found("check", "layout"));
        assert!(found("demo", "vm::job"), "by a re-export");
        assert!(!found("vm::job", "vm"));
        assert!(!found("layout", "sh"), "for tests alone");
        assert!(circles(&uses).is_empty());
    }
}

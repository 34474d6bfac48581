//! What `cargo xtask check` says of how the code is laid out: layers, circles of modules, and sizes.

mod circles;
mod layers;
mod modules;
mod sizes;

use std::path::Path;

use anyhow::Result;
use circles::circles;
use modules::{Modules, Use};

/// Everything against the rules: a line each, with the file, the rule and the remedy.
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

    /// A test of this checkout, so that a rule is seen at work before `cargo xtask check` is run: prints what is wrong.
    #[test]
    #[ignore = "prints the violations of the tree in LAYOUT_OF"]
    fn print() {
        let tree = std::env::var("LAYOUT_OF").expect("LAYOUT_OF names a directory");
        let wrong = violations(Path::new(&tree)).expect("the tree can be read");
        wrong.iter().for_each(|line| println!("{line}"));
    }
}

//! Which module may use which. Design first, then this table, then code.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

/// A layer of the loader: its path in `vlanfast/src`, and the paths below `crate` that it must not
/// use. The most specific entry for a file counts.
const LAYERS: &[(&str, &[&str])] = &[
    // Verbs are on top: nothing but `main` uses them.
    ("cmd", &[]),
    // The loop between the sources and the maps.
    ("reconcile", &["cmd", "cli", "metrics", "output"]),
    // Moves what the programs look at, and tells whoever started us.
    (
        "heartbeat",
        &["cmd", "cli", "metrics", "output", "reconcile", "source"],
    ),
    // Stands alone: a socket and what is said by it.
    (
        "notify",
        &[
            "cmd",
            "cli",
            "datapath",
            "heartbeat",
            "metrics",
            "output",
            "reconcile",
            "source",
            "state",
        ],
    ),
    (
        "datapath",
        &["cmd", "metrics", "output", "reconcile", "source"],
    ),
    // Knows what is so, and nothing of what is made of it.
    (
        "source",
        &[
            "cmd",
            "cli",
            "datapath",
            "metrics",
            "netlink",
            "output",
            "reconcile",
        ],
    ),
    // Pure: decides, and asks nobody.
    (
        "datapath/choose",
        &[
            "cmd",
            "output",
            "datapath::hooks",
            "datapath::load",
            "netlink",
        ],
    ),
    // Pure as well: stands on nothing but `vlanfast-common`.
    (
        "state",
        &[
            "cmd",
            "cli",
            "datapath",
            "error",
            "metrics",
            "netlink",
            "output",
            "reconcile",
            "source",
        ],
    ),
    // Shows what it is given: the counters too are read by whoever starts it.
    (
        "metrics",
        &[
            "cmd",
            "cli",
            "datapath",
            "netlink",
            "output",
            "reconcile",
            "source",
        ],
    ),
    (
        "cli",
        &["cmd", "output", "datapath", "metrics", "reconcile"],
    ),
    // The one way to the kernel's rtnetlink. It decides nothing.
    (
        "netlink",
        &[
            "cmd",
            "cli",
            "datapath",
            "metrics",
            "output",
            "reconcile",
            "source",
            "state::desired",
            "state::plan",
        ],
    ),
    ("output", &["cmd", "datapath", "cli"]),
    ("error", &["cmd", "datapath", "cli", "netlink"]),
    // Stands alone: signals, and an end that comes.
    (
        "stop",
        &[
            "cmd",
            "cli",
            "datapath",
            "error",
            "heartbeat",
            "metrics",
            "netlink",
            "reconcile",
            "source",
            "state",
        ],
    ),
];

/// What `vlanfast-common` must not name: it is packet logic alone.
const OUTSIDE: &[&str] = &["std::", "alloc::", "aya_ebpf", "tokio", "libc::"];

/// Every import against the rules, as `file: import`.
pub fn violations(workspace: &Path) -> Result<Vec<String>> {
    let mut wrong = vec![];
    let loader = workspace.join("vlanfast/src");
    for file in sources(&loader)? {
        let name = file
            .strip_prefix(&loader)
            .unwrap_or(&file)
            .with_extension("");
        let name = name.to_string_lossy();
        if let Some(forbidden) = rule(&name) {
            let text = read(&file)?;
            let used = imports(&name, &text);
            wrong.extend(
                used.iter()
                    .filter(|path| forbidden.iter().any(|layer| is_below(path, layer)))
                    .map(|path| format!("vlanfast/src/{name}.rs: crate::{path}")),
            );
        }
    }
    for file in sources(&workspace.join("vlanfast-common/src"))? {
        let code = code(&read(&file)?);
        let named = OUTSIDE.iter().filter(|word| code.contains(**word));
        let file = file
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        wrong.extend(named.map(|word| format!("vlanfast-common/src/{file}: {word}")));
    }
    Ok(wrong)
}

/// The rule for a file, by the longest layer that it is in.
fn rule(name: &str) -> Option<&'static [&'static str]> {
    LAYERS
        .iter()
        .filter(|(layer, _)| Path::new(name).starts_with(layer))
        .max_by_key(|(layer, _)| layer.len())
        .map(|(_, forbidden)| *forbidden)
}

/// A file without its comments.
fn code(text: &str) -> String {
    let lines = text
        .lines()
        .map(|line| line.split_once("//").map_or(line, |(code, _)| code));
    lines.collect::<Vec<_>>().join(" ")
}

/// Every path below `crate` that a file names, `use` groups and `super` spelled out.
fn imports(name: &str, text: &str) -> Vec<String> {
    let code = code(text);
    let module: Vec<&str> = name.split('/').filter(|part| *part != "mod").collect();
    let starts = code
        .match_indices("crate::")
        .chain(code.match_indices("super::"));
    let mut found = vec![];
    for (at, _) in starts {
        // The second of `super::super`, or the end of a longer name.
        if code[..at].ends_with(|c: char| c == ':' || c == '_' || c.is_alphanumeric()) {
            continue;
        }
        let mut rest = &code[at..];
        let mut above = module.len();
        while let Some(below) = rest.strip_prefix("super::") {
            rest = below;
            above = above.saturating_sub(1);
        }
        match rest.strip_prefix("crate::") {
            Some(path) => expand("", path, &mut found),
            None => expand(&module[..above].join("::"), rest, &mut found),
        };
    }
    found
}

/// Reads one path, or one group of paths in braces; gives what follows it.
fn expand<'a>(prefix: &str, text: &'a str, found: &mut Vec<String>) -> &'a str {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        loop {
            rest = rest.trim_start_matches([' ', ',']);
            match rest.strip_prefix('}') {
                Some(after) => return after,
                None if rest.is_empty() => return rest,
                None => {}
            }
            let after = expand(prefix, rest, found);
            // Something that is no path: a group ends here as far as we can tell.
            if after.len() == rest.len() {
                return rest;
            }
            rest = after;
        }
    }
    let end = text
        .find(|c: char| !c.is_alphanumeric() && c != '_' && c != '*')
        .unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let path = if prefix.is_empty() {
        name.to_owned()
    } else {
        format!("{prefix}::{name}")
    };
    match rest.strip_prefix("::") {
        Some(below) => expand(&path, below, found),
        None => {
            found.push(path);
            rest
        }
    }
}

fn is_below(path: &str, layer: &str) -> bool {
    path == layer
        || path
            .strip_prefix(layer)
            .is_some_and(|rest| rest.starts_with("::"))
}

fn sources(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = vec![];
    let entries = fs::read_dir(dir).with_context(|| format!("failed to read {}", dir.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(sources(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).with_context(|| format!("failed to read {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::{imports, is_below, rule};

    #[test]
    fn groups_are_spelled_out() {
        let text = "use crate::{\n    cli::Asked,\n    datapath::{hooks, pins::{Lock, Pins}},\n};\nfn f() { crate::output::text(); }";
        let expected = [
            "cli::Asked",
            "datapath::hooks",
            "datapath::pins::Lock",
            "datapath::pins::Pins",
            "output::text",
        ];
        assert_eq!(imports("cmd/status", text), expected);
    }

    #[test]
    fn neither_a_glob_nor_a_comment_hides_the_rest_of_a_group() {
        let text = "use crate::{\n    cli::*, // why\n    cmd,\n};";
        assert_eq!(imports("output", text), ["cli::*", "cmd"]);
    }

    #[test]
    fn super_is_the_module_above() {
        let text = "use super::{load, super_x};\nfn f() { super::super::cmd::run() }";
        let expected = ["datapath::load", "datapath::super_x", "cmd::run"];
        assert_eq!(imports("datapath/choose", text), expected);
        assert_eq!(imports("datapath/mod", "use super::cmd;"), ["cmd"]);
    }

    #[test]
    fn comments_import_nothing() {
        assert!(imports("cli", "/// See [`crate::cmd`].\n").is_empty());
    }

    #[test]
    fn the_most_specific_rule_counts() {
        assert!(rule("datapath/choose").unwrap().contains(&"datapath::load"));
        assert!(!rule("datapath/hooks").unwrap().contains(&"datapath::load"));
        assert!(rule("main").is_none());
    }

    #[test]
    fn a_layer_holds_what_is_below_it_and_not_what_sounds_like_it() {
        assert!(is_below("cmd::attach", "cmd"));
        assert!(!is_below("cmdline", "cmd"));
    }
}

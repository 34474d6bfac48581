//! The layers of every crate from top to bottom, which determine the modules that a module may use. Change the design
//! first (ARCHITECTURE.md), then this table, then the code.

use std::cmp::Ordering;

use super::modules::{Module, Modules, Use};

/// A crate and its layers.
pub struct Crate {
    /// The file of its root module.
    pub root: &'static str,
    /// The layers from top to bottom. A module, with its submodules, may use itself and the layers below its own.
    /// Modules of one layer do not use each other. A submodule may be in another layer than its parent.
    pub layers: &'static [&'static [&'static str]],
    /// The crates that it must not use.
    pub forbidden: &'static [&'static str],
}

pub const CRATES: &[Crate] = &[
    Crate {
        root: "vlanfast-common/src/lib.rs",
        layers: &[
            // Tests and tools use these in place of the maps.
            &["uniform"],
            &["classify"],
            &["shortcut"],
            &["count"],
            // The lookups of a decision.
            &["lookup"],
            &["verdict", "heartbeat", "bucket"],
            &["bytes"],
            &["parse"],
            &["headers"],
            &["frame"],
            &["message"],
            &["layer2"],
            // The types that the kernel and the loader share.
            &["abi"],
            &["atomic"],
        ],
        // This is pure packet logic, for the kernel and for the tests.
        forbidden: &["std", "alloc", "aya_ebpf", "tokio", "libc"],
    },
    Crate {
        root: "vlanfast-ebpf/src/main.rs",
        layers: &[
            &["tc::program", "tc::vlan_device", "xdp::program"],
            &["tc::act", "xdp::act"],
            &["pipeline"],
            &["xdp", "tc"],
            &["lookup", "count", "log"],
            &["linear"],
            &["maps"],
        ],
        forbidden: &["std", "alloc"],
    },
    Crate {
        root: "vlanfast/src/lib.rs",
        layers: &[
            // There is a file for each verb.
            &["cmd"],
            // The loop that brings the maps in line with the sources.
            &["reconcile"],
            // The metrics show the values that they are given, and query nothing.
            &["hooks", "metrics"],
            &["maps"],
            &["pins", "cli"],
            // The sources read the current state, and do not depend on its use.
            &["netlink", "names"],
            &["notify", "stop", "error", "clock"],
            &["output"],
            // These modules decide, and query nothing.
            &["state"],
        ],
        forbidden: &[],
    },
    Crate {
        root: "tests/src/lib.rs",
        layers: &[
            // The tests that more than one program runs.
            &["live"],
            &["cases"],
            &["fixtures"],
            &["run"],
            &["net"],
            &["run::require"],
        ],
        forbidden: &[],
    },
    Crate {
        root: "bench/src/main.rs",
        layers: &[
            // There is a file for each table of the page.
            &["tables"],
            &["bench", "bare_shortcut", "storm"],
            &["contender", "containers"],
            &["one_container"],
            &["generator"],
            &["netns", "measure", "frame", "report", "rows"],
        ],
        forbidden: &[],
    },
    Crate {
        root: "xtask/src/main.rs",
        layers: &[
            // There is a file or a directory for each command.
            &["bench", "check", "demo", "test"],
            &["ebpf", "vm", "layout"],
            &["setup"],
            &["toolchain"],
            &["sh"],
        ],
        forbidden: &[],
    },
];

impl Crate {
    /// Checks every use against the layers, and finds modules without an entry and entries without a module.
    pub fn violations(&self, modules: &Modules, uses: &[Use]) -> Vec<String> {
        let of_root = |path: &str| path.is_empty();
        let files = modules.files().filter(|module| !of_root(&module.path));
        let homeless = files.filter(|module| self.layer(&module.path).is_none());
        let mut wrong: Vec<String> = homeless.map(|module| self.homeless(module)).collect();
        for Use { from, to, path } in uses {
            if let Some((place, [mine, other])) = self.against(&from.path, &to.path) {
                wrong.push(format!(
                    "{}: uses `{path}`: the layer of `{other}` is {place} that of `{mine}`: move what is needed \
                     into a lower layer, or hand it in as an argument",
                    from.file.display()
                ));
            }
        }
        let entries = self.layers.iter().copied().flatten();
        let stale = entries.filter(|entry| modules.files().all(|module| module.path != **entry));
        wrong.extend(stale.map(|entry| {
            format!(
                "{}: there is no module `{entry}`: take it out of xtask/src/layout/layers.rs",
                self.root
            )
        }));
        let named = modules
            .outside()
            .filter(|(_, name)| self.forbidden.contains(name));
        wrong.extend(named.map(|(module, name)| {
            format!(
                "{}: names the crate `{name}`, which this crate does without: hand in what is needed as an argument",
                module.file.display()
            )
        }));
        wrong
    }

    /// Returns the number of a module's layer from the top, and the entry that places it there: the longest one
    /// counts.
    fn layer(&self, path: &str) -> Option<(usize, &'static str)> {
        let layers = self.layers.iter().enumerate();
        let entries =
            layers.flat_map(|(number, layer)| layer.iter().map(move |entry| (number, *entry)));
        let its = entries.filter(|(_, entry)| is_below(path, entry));
        its.max_by_key(|(_, entry)| entry.len())
    }

    fn homeless(&self, module: &Module) -> String {
        format!(
            "{}: the module `{}` is in no layer: put it into one in xtask/src/layout/layers.rs",
            module.file.display(),
            module.path
        )
    }

    /// Returns the layer of `to` and the entries of both modules, if `from` must not use `to`.
    fn against(&self, from: &str, to: &str) -> Option<(&'static str, [&'static str; 2])> {
        let (from, mine) = self.layer(from)?;
        let (to, other) = self.layer(to)?;
        match to.cmp(&from) {
            Ordering::Less => Some(("above", [mine, other])),
            Ordering::Equal if mine != other => Some(("beside", [mine, other])),
            _ => None,
        }
    }
}

fn is_below(path: &str, entry: &str) -> bool {
    let rest = path.strip_prefix(entry);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CRATE: Crate = Crate {
        root: "",
        layers: &[&["cmd"], &["hooks", "metrics"], &["hooks::choose"]],
        forbidden: &[],
    };

    fn place(from: &str, to: &str) -> Option<&'static str> {
        CRATE.against(from, to).map(|(place, _)| place)
    }

    #[test]
    fn a_module_uses_what_is_below_it_and_itself() {
        assert_eq!(place("cmd::attach", "hooks::device"), None);
        assert_eq!(place("cmd::attach", "cmd::status"), None);
        assert_eq!(place("hooks", "cmd::attach"), Some("above"));
        assert_eq!(place("metrics", "hooks"), Some("beside"));
    }

    #[test]
    fn the_most_specific_entry_counts() {
        assert_eq!(place("hooks", "hooks::choose"), None);
        assert_eq!(place("hooks::choose", "hooks"), Some("above"));
        assert_eq!(CRATE.layer("cmdline"), None);
    }
}

//! The names of what is pinned, and how a pin is replaced by another without a gap.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::Context;

pub const COUNTERS: &str = "COUNTERS";
pub const SETTINGS: &str = "SETTINGS";
pub const STATUS: &str = "STATUS";
pub const VLANS: &str = "VLANS";
pub const ENDPOINTS: &str = "ENDPOINTS";
pub const NEIGHBORS: &str = "NEIGHBORS";
pub const ROUTES: &str = "ROUTES";
pub const FLOWS: &str = "FLOWS";
pub const PAIRS: &str = "PAIRS";
pub const CLAIMS: &str = "CLAIMS";

/// The maps that are pinned, in this order. `SETTINGS` comes first, because it records what has to be undone.
pub const MAPS: [&str; 10] = [
    SETTINGS, COUNTERS, STATUS, VLANS, ENDPOINTS, NEIGHBORS, ROUTES, FLOWS, PAIRS, CLAIMS,
];

/// The links and programs that are pinned.
const HOOKS: [&str; 4] = [
    "ingress_link",
    "egress_link",
    "ingress_program",
    "egress_program",
];
/// The prefix of a pin that is to replace another.
const NEXT: &str = "next_";

/// Whether a pin has a name that vlanfast uses.
pub fn is_ours(name: &[u8]) -> bool {
    let name = name.strip_prefix(NEXT.as_bytes()).unwrap_or(name);
    let ours = MAPS.iter().chain(&HOOKS);
    ours.into_iter().any(|known| known.as_bytes() == name)
}

/// The path of a pin that is to replace the one at `path`. A crash may leave it there.
pub fn next(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{NEXT}{name}"))
}

/// Pins an object beside the one at `path`. [`commit`] then puts it in that place.
pub fn stage<E>(path: &Path, pin: impl FnOnce(&Path) -> Result<(), E>) -> anyhow::Result<()>
where
    Result<(), E>: Context<(), E>,
{
    let next = next(path);
    let what = || format!("failed to pin {}", next.display());
    match fs::remove_file(&next) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        result => result.with_context(what)?,
    }
    pin(&next).with_context(what)
}

/// Replaces the pin at `path`, if there is one, with the staged pin. At every moment one of them is there.
pub fn commit(path: &Path) -> anyhow::Result<()> {
    fs::rename(next(path), path).with_context(|| format!("failed to replace {}", path.display()))
}

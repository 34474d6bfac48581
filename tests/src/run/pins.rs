//! The directories under which vlanfast pins what it loaded.

use std::{fs, path::PathBuf};

/// Where the pins of all trunks are.
pub const PINS: &str = "/sys/fs/bpf/vlanfast";

/// The directory of a trunk's pins, which ends with its name; or one that is not there.
pub fn pins(trunk: &str) -> PathBuf {
    let name = format!(":{}", trunk.replace('.', ":"));
    let entries = fs::read_dir(PINS).into_iter().flatten().flatten();
    let mut found = entries.filter(|entry| entry.file_name().to_string_lossy().ends_with(&name));
    let none = PathBuf::from(PINS).join(trunk);
    found.next().map_or(none, |entry| entry.path())
}

/// Whether a trunk has pins.
pub fn is_pinned(trunk: &str) -> bool {
    fs::exists(pins(trunk)).unwrap_or(false)
}

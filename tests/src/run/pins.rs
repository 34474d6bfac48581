//! The directories in which vlanfast pins its maps and programs.

use std::{fs, path::PathBuf};

/// The directory that holds the pins of all trunks.
pub const PINS: &str = "/sys/fs/bpf/vlanfast";

/// Returns the directory of a trunk's pins, whose name ends with the trunk's, or a path that does not exist.
pub fn pins(trunk: &str) -> PathBuf {
    let name = format!(":{}", trunk.replace('.', ":"));
    let entries = fs::read_dir(PINS).into_iter().flatten().flatten();
    let mut found = entries.filter(|entry| entry.file_name().to_string_lossy().ends_with(&name));
    let none = PathBuf::from(PINS).join(trunk);
    found.next().map_or(none, |entry| entry.path())
}

/// Checks whether a trunk has pins.
pub fn is_pinned(trunk: &str) -> bool {
    fs::exists(pins(trunk)).unwrap_or(false)
}

//! Namespaces that nothing but their processes keeps: neither a mount nor an id of ours leads to them
//! (`systemd-nspawn --network-macvlan`, `unshare -n`).

use std::{collections::BTreeMap, fs, fs::File, io, os::unix::fs::MetadataExt, path::PathBuf};

use anyhow::Context;
use tokio::task::yield_now;

const PROCESSES: &str = "/proc";
/// Processes that are looked at before signals and heartbeats have their turn.
const AT_ONCE: usize = 256;

/// The namespaces of all processes, each by the file of one of them.
#[derive(Debug, Default)]
pub struct Found {
    /// By inode. For the caller to open one at a time.
    pub namespaces: BTreeMap<u64, PathBuf>,
    /// Some processes keep theirs to themselves: that takes CAP_SYS_PTRACE.
    pub refused: bool,
}

/// Looks at every process.
pub async fn namespaces() -> anyhow::Result<Found> {
    let what = || format!("failed to list {PROCESSES}");
    let mut found = Found::default();
    for (count, entry) in fs::read_dir(PROCESSES).with_context(what)?.enumerate() {
        let entry = entry.with_context(what)?;
        let name = entry.file_name();
        if !name.as_encoded_bytes().iter().all(u8::is_ascii_digit) {
            continue;
        }
        let path = entry.path().join("ns/net");
        match fs::metadata(&path) {
            Ok(file) => {
                found.namespaces.entry(file.ino()).or_insert(path);
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => found.refused = true,
            // It has ended.
            Err(_) => {}
        }
        if count % AT_ONCE == 0 {
            yield_now().await;
        }
    }
    Ok(found)
}

/// The file of a namespace that still is the one with an inode.
pub fn open(inode: u64, path: &PathBuf) -> Option<File> {
    let file = File::open(path).ok()?;
    let is_same = file.metadata().is_ok_and(|it| it.ino() == inode);
    is_same.then_some(file)
}

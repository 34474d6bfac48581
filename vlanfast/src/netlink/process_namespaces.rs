//! Finds the network namespaces of all processes. A namespace that only its processes keep alive has neither a mount
//! nor an nsid (`systemd-nspawn --network-macvlan`, `unshare -n`).

use std::{collections::BTreeMap, fs, fs::File, io, os::unix::fs::MetadataExt, path::PathBuf};

use anyhow::Context;
use tokio::task::yield_now;

const PROCESSES: &str = "/proc";
/// How many processes are examined before other tasks run.
const AT_ONCE: usize = 256;

/// The network namespaces that were found.
#[derive(Debug, Default)]
pub struct Found {
    /// For each inode, the namespace file of one process. The caller opens them one at a time.
    pub namespaces: BTreeMap<u64, PathBuf>,
    /// Some processes could not be examined, which requires CAP_SYS_PTRACE.
    pub refused: bool,
}

/// Examines every process.
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
            // The process has ended.
            Err(_) => {}
        }
        if count % AT_ONCE == 0 {
            yield_now().await;
        }
    }
    Ok(found)
}

/// Opens a namespace file, unless it is a different namespace by now.
pub fn open(inode: u64, path: &PathBuf) -> Option<File> {
    let file = File::open(path).ok()?;
    let is_same = file.metadata().is_ok_and(|it| it.ino() == inode);
    is_same.then_some(file)
}

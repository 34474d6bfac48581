//! Finds mounted network namespaces, so that each can be given an id (nsid).
//!
//! The kernel gives a namespace an id in ours when a device moves there from here. A namespace whose macvlan was
//! created in place (CNI, Podman), or came from a third namespace, has no id, and netlink shows neither its devices nor
//! their events. Such a namespace is usually kept alive by a bind mount of its file (`ip netns`, CNI, Podman, Docker),
//! and through that file it can be given an id. The mount table lists these mounts, wherever they are, and the kernel
//! reports when it changes (proc_pid_mountinfo(5)).

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs::{self, File},
    io,
    os::unix::ffi::OsStringExt,
    path::PathBuf,
};

use anyhow::Context;
use tokio::io::{Interest, unix::AsyncFd};

const TABLE: &str = "/proc/self/mountinfo";

/// Watches the mount table for network namespaces.
pub struct Mounts {
    table: AsyncFd<File>,
    /// The mounts whose namespaces have an id. The whole line identifies a mount, because inodes are reused.
    known: BTreeSet<Vec<u8>>,
}

/// A mounted namespace.
#[derive(Debug, PartialEq, Eq)]
pub struct Mount {
    line: Vec<u8>,
    pub path: PathBuf,
}

impl Mounts {
    pub fn open() -> anyhow::Result<Self> {
        let what = || format!("failed to watch {TABLE}");
        let table = File::open(TABLE).with_context(what)?;
        // SAFETY: the file owns its descriptor, and keeps it open until it is dropped.
        let table = unsafe { AsyncFd::register_with_interest(table, Interest::PRIORITY) };
        let table = table.with_context(what)?;
        Ok(Self {
            table,
            known: BTreeSet::new(),
        })
    }

    /// Waits until the mount table changes.
    pub async fn changed(&self) -> io::Result<()> {
        self.table
            .ready(Interest::PRIORITY)
            .await
            .map(|mut ready| ready.clear_ready())
    }

    /// Lists the mounts whose namespaces are not known to have an id. The caller opens them one at a time, because
    /// there may be more containers than a process may have open files.
    pub fn unknown(&mut self) -> anyhow::Result<Vec<Mount>> {
        // The file need not be UTF-8: the kernel escapes only separators.
        let table = fs::read(TABLE).with_context(|| format!("failed to read {TABLE}"))?;
        let (known, unknown): (Vec<_>, Vec<_>) = table
            .split(|byte| *byte == b'\n')
            .filter_map(mount)
            .partition(|mount| self.known.contains(&mount.line));
        self.known = known.into_iter().map(|mount| mount.line).collect();
        Ok(unknown)
    }

    /// Records that the namespace of a mount has an id.
    pub fn know(&mut self, mount: Mount) {
        self.known.insert(mount.line);
    }

    /// Forgets which namespaces have an id, so that all are listed again.
    pub fn forget(&mut self) {
        self.known.clear();
    }
}

/// Parses a line of the mount table: `36 35 0:4 net:[4026532281] /run/netns/a rw shared:2 - nsfs nsfs rw`.
fn mount(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ').skip(3);
    fields.next()?.strip_prefix(b"net:[")?;
    Some(Mount {
        line: line.to_vec(),
        path: OsString::from_vec(unescape(fields.next()?)).into(),
    })
}

/// Undoes the kernel's escaping of separators as a backslash and three octal digits (`mangle_path`).
fn unescape(mut path: &[u8]) -> Vec<u8> {
    let mut plain = vec![];
    while let Some((&byte, rest)) = path.split_first() {
        let code = rest.first_chunk::<3>().filter(|_| byte == b'\\');
        let code = code.and_then(|digits| str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(escaped) => {
                plain.push(escaped);
                path = &rest[3..];
            }
            None => {
                plain.push(byte);
                path = rest;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_any_bytes() {
        for (escaped, plain) in [
            (&b"/run/a\\040b\\011\\012\\043"[..], &b"/run/a b\t\n#"[..]),
            (b"/run/\\134040", b"/run/\\040"),
            (b"/run/B\xfcro", b"/run/B\xfcro"),
            (b"/run/\\9", b"/run/\\9"),
        ] {
            assert_eq!(unescape(escaped), plain);
        }
    }

    #[test]
    fn only_network_namespaces_are_taken() {
        let line = b"36 35 0:4 net:[4026532281] /run/netns/a\\040b rw shared:2 - nsfs nsfs rw";
        let expected = Mount {
            line: line.to_vec(),
            path: "/run/netns/a b".into(),
        };
        assert_eq!(mount(line), Some(expected));
        for other in [
            &b"22 1 253:0 / / rw,relatime - ext4 /dev/vda rw"[..],
            b"37 35 0:4 mnt:[4026532282] /run/x rw - nsfs nsfs rw",
            b"38 35 0:4 / /mnt/B\xfcro rw - tmpfs none rw",
            b"",
        ] {
            assert_eq!(mount(other), None);
        }
    }
}

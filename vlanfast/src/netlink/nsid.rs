//! Namespaces that have no id yet.
//!
//! The kernel gives a namespace an id in ours when a device moves there from here. One whose macvlan
//! was made in place (CNI, Podman), or came from a third namespace, has none, and would be unseen and
//! unheard. Such a namespace is kept alive by a bind mount of its file (`ip netns`, CNI, Podman,
//! Docker), and through that it can be given an id. Where those mounts are does not matter: the mount
//! table lists them, and the kernel says when it changes (proc_pid_mountinfo(5)).

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

/// The network namespaces that are mounted somewhere.
pub struct Mounts {
    table: AsyncFd<File>,
    /// Those that have their id. By the whole line of the table: inodes are used again.
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

    /// Waits until something was mounted or unmounted.
    pub async fn changed(&self) -> io::Result<()> {
        self.table
            .ready(Interest::PRIORITY)
            .await
            .map(|mut ready| ready.clear_ready())
    }

    /// The mounts that are not known to have an id. For the caller to open one at a time: a process may
    /// hold fewer files open than there are containers.
    pub fn unknown(&mut self) -> anyhow::Result<Vec<Mount>> {
        // Paths are bytes: only some of them are escaped.
        let table = fs::read(TABLE).with_context(|| format!("failed to read {TABLE}"))?;
        let (known, unknown): (Vec<_>, Vec<_>) = table
            .split(|byte| *byte == b'\n')
            .filter_map(mount)
            .partition(|mount| self.known.contains(&mount.line));
        self.known = known.into_iter().map(|mount| mount.line).collect();
        Ok(unknown)
    }

    /// This one has its id.
    pub fn know(&mut self, mount: Mount) {
        self.known.insert(mount.line);
    }

    /// Has all of them looked at again.
    pub fn forget(&mut self) {
        self.known.clear();
    }
}

/// Reads a line of the table: `36 35 0:4 net:[4026532281] /run/netns/a rw shared:2 - nsfs nsfs rw`.
fn mount(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ').skip(3);
    fields.next()?.strip_prefix(b"net:[")?;
    Some(Mount {
        line: line.to_vec(),
        path: OsString::from_vec(unescape(fields.next()?)).into(),
    })
}

/// What would end a field or a line is a backslash and three octal digits (`mangle_path` of the kernel).
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

//! The identity of a trunk: a network namespace and the index of a device in it. Names may change.

use anyhow::Context;
use nix::{
    getsockopt_impl, sockopt_impl,
    sys::socket::{AddressFamily, SockFlag, SockType, getsockopt, socket},
};

use crate::state::name::Name;

sockopt_impl!(
    /// The cookie of the socket's network namespace (Linux 5.14). It is unique until the next boot.
    NetnsCookie, GetOnly, libc::SOL_SOCKET, libc::SO_NETNS_COOKIE, u64
);

/// A device of a network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrunkId {
    /// The cookie of its network namespace.
    pub netns: u64,
    pub ifindex: u32,
}

/// The cookie of our own network namespace.
pub fn netns() -> anyhow::Result<u64> {
    let kind = (AddressFamily::Unix, SockType::Datagram);
    let ask = || {
        getsockopt(
            &socket(kind.0, kind.1, SockFlag::SOCK_CLOEXEC, None)?,
            NetnsCookie,
        )
    };
    ask().context("failed to read the cookie of our network namespace")
}

/// The name of a pin directory: the identity of the trunk and, for human readers, the name that its device had last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// `None` for pins of an early version, which knew trunks by their names.
    pub id: Option<TrunkId>,
    pub name: Name,
}

impl Entry {
    /// The name of the directory. Dots become colons, because bpffs reserves names with a dot, and no device name has a
    /// colon.
    pub fn file_name(&self) -> Vec<u8> {
        let id = self
            .id
            .map(|TrunkId { netns, ifindex }| format!("{netns}:{ifindex}:"));
        let mut bytes = id.unwrap_or_default().into_bytes();
        bytes.extend(replaced(self.name.as_bytes(), b'.', b':'));
        bytes
    }

    /// Reads the name of a directory.
    pub fn parse(bytes: &[u8]) -> Self {
        let mut parts = bytes.splitn(3, |byte| *byte == b':');
        let [netns, ifindex] = [parts.next(), parts.next()].map(Option::unwrap_or_default);
        let id = number(netns)
            .zip(number(ifindex).and_then(|ifindex| ifindex.try_into().ok()))
            .map(|(netns, ifindex)| TrunkId { netns, ifindex });
        let (id, name) = match (id, parts.next()) {
            (Some(id), Some(name)) => (Some(id), name),
            _ => (None, bytes),
        };
        let name = replaced(name, b':', b'.').collect::<Vec<_>>();
        Self {
            id,
            name: Name::new(&name),
        }
    }
}

fn replaced(bytes: &[u8], old: u8, new: u8) -> impl Iterator<Item = u8> {
    let replace = move |byte: &u8| if *byte == old { new } else { *byte };
    bytes.iter().map(replace)
}

fn number(digits: &[u8]) -> Option<u64> {
    let digits = digits.iter().all(u8::is_ascii_digit).then_some(digits)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_name_gives_the_trunk_and_its_device_name() {
        for (file_name, id, name) in [
            (&b"4096:2:eth0"[..], Some((4096, 2)), &b"eth0"[..]),
            (b"1:7:br-lan:10", Some((1, 7)), b"br-lan.10"),
            (b"1:7:\xff\xfe", Some((1, 7)), b"\xff\xfe"),
            (b"eth0", None, b"eth0"),
            (b"br-lan:10", None, b"br-lan.10"),
            (b"10:20", None, b"10.20"),
            (b"1:eth0:2", None, b"1.eth0.2"),
            (b"1:99999999999:eth0", None, b"1.99999999999.eth0"),
            (b"+1:2:eth0", None, b"+1.2.eth0"),
        ] {
            let entry = Entry {
                id: id.map(|(netns, ifindex)| TrunkId { netns, ifindex }),
                name: Name::new(name),
            };
            assert_eq!(Entry::parse(file_name), entry);
            assert_eq!(entry.file_name(), file_name);
        }
    }

    #[test]
    fn a_namespace_has_one_cookie() {
        assert_eq!(netns().unwrap(), netns().unwrap());
    }
}

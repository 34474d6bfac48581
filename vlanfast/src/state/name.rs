//! Device names. For the kernel, a name is a sequence of bytes in any encoding.

use std::{
    convert::Infallible,
    ffi::{OsStr, OsString},
    fmt::{self, Write},
    os::unix::ffi::OsStrExt,
    str::FromStr,
};

use serde::{Serialize, Serializer};

/// The name of a device, or a name by which a device is looked up. It has any bytes but NUL.
///
/// It is displayed as text that is safe on a terminal: control characters, and bytes that are not UTF-8, are escaped as
/// in a Rust string (`\u{1b}`, `\xff`).
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Vec<u8>);

impl Name {
    pub fn new(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether the kernel allows this name for a device (`dev_valid_name` in `net/core/dev.c`). An alternative name may
    /// be longer and contain a slash.
    pub fn is_valid(&self) -> bool {
        const IFNAMSIZ: usize = 16;
        let is_space = |byte: &u8| byte.is_ascii_whitespace() || *byte == 0x0b || *byte == 0xa0;
        let allowed = |byte: &u8| !matches!(byte, 0 | b'/' | b':') && !is_space(byte);
        !matches!(self.0.as_slice(), b"" | b"." | b"..")
            && self.0.len() < IFNAMSIZ
            && self.0.iter().all(allowed)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = String::new();
        for chunk in self.0.utf8_chunks() {
            shown.push_str(&escape(chunk.valid()));
            for byte in chunk.invalid() {
                write!(shown, "\\x{byte:02x}")?;
            }
        }
        f.pad(&shown)
    }
}

/// Escapes everything in a text that a terminal would not print, including line ends.
pub fn escape(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '"' | '\'' | '\\' => shown.push(letter),
            letter => shown.extend(letter.escape_debug()),
        }
    }
    shown
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({self})")
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl FromStr for Name {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self::from(text))
    }
}

impl From<&str> for Name {
    fn from(text: &str) -> Self {
        Self::new(text.as_bytes())
    }
}

impl From<&OsStr> for Name {
    fn from(text: &OsStr) -> Self {
        Self::new(text.as_bytes())
    }
}

impl From<OsString> for Name {
    fn from(text: OsString) -> Self {
        Self::from(text.as_os_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_are_shown_as_text() {
        let shown = |bytes: &[u8]| Name::new(bytes).to_string();
        assert_eq!(shown(b"eth0.10"), "eth0.10");
        assert_eq!(shown(b"\xff\xfe"), r"\xff\xfe");
        assert_eq!(shown("B\u{fc}ro".as_bytes()), "B\u{fc}ro");
        assert_eq!(shown(b"B\xfcro"), r"B\xfcro");
        assert_eq!(shown(b"\x1b[2J"), r"\u{1b}[2J");
        assert_eq!(shown("a\u{202e}b".as_bytes()), r"a\u{202e}b");
        assert_eq!(format!("{:>6}", Name::from("eth0")), "  eth0");
    }

    #[test]
    fn the_kernels_rules_for_names_are_ours() {
        for name in ["eth0", "eth0.10", "...", "-", "\u{fc}", "fifteen-letters"] {
            assert!(Name::from(name).is_valid(), "{name}");
        }
        for name in [
            "",
            ".",
            "..",
            "/tmp",
            "a/b",
            "a:b",
            "a b",
            "a\tb",
            "a\nb",
            "sixteen-letters!",
        ] {
            assert!(!Name::from(name).is_valid(), "{name}");
        }
        assert!(Name::new(b"\xff\xfe").is_valid());
        assert!(!Name::new(b"a\0b").is_valid());
    }
}

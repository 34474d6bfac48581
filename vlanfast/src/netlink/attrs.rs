//! Parses netlink attributes. Only attributes that are read are validated.

use netlink_packet_core::{NLA_HEADER_SIZE, NlasIterator};

/// Why a message cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

/// A complete sequence of attributes.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a>(&'a [u8]);

impl<'a> Attributes<'a> {
    /// Parses a sequence of attributes. A truncated sequence is an error, because it is unknown what it lacks.
    pub fn read(bytes: &'a [u8]) -> Result<Self, Malformed> {
        match NlasIterator::new(bytes).all(|attribute| attribute.is_ok()) {
            true => Ok(Self(bytes)),
            false => Err(Malformed("its attributes are truncated")),
        }
    }

    /// Parses the attributes that follow the header of a message type.
    pub fn behind(body: &'a [u8], header: usize) -> Result<Self, Malformed> {
        let rest = body.get(header..).ok_or(TOO_SHORT)?;
        Self::read(rest)
    }

    /// Iterates over the attributes as pairs of type and value.
    pub fn iter(self) -> impl Iterator<Item = (u16, Value<'a>)> {
        NlasIterator::new(self.0)
            .map_while(Result::ok)
            .map(|attribute| {
                let (kind, bytes) = (attribute.kind(), attribute.into_inner());
                // The length was checked when the attribute was found.
                let length = bytes.first_chunk().copied().map(u16::from_ne_bytes);
                let end = usize::from(length.unwrap_or_default());
                let value = bytes.get(NLA_HEADER_SIZE..end).unwrap_or_default();
                (kind, Value(value))
            })
    }

    /// Finds the first attribute of a type.
    pub fn get(self, kind: u16) -> Option<Value<'a>> {
        self.iter().find(|(it, _)| *it == kind).map(|(_, it)| it)
    }

    /// Finds an attribute that must be present; `lacks` is the error message.
    pub fn need(self, kind: u16, lacks: &'static str) -> Result<Value<'a>, Malformed> {
        self.get(kind).ok_or(Malformed(lacks))
    }
}

/// The error for a message that is shorter than its header.
pub const TOO_SHORT: Malformed = Malformed("it is too short");

/// An attribute's value.
#[derive(Clone, Copy, Debug)]
pub struct Value<'a>(&'a [u8]);

impl<'a> Value<'a> {
    pub const fn bytes(self) -> &'a [u8] {
        self.0
    }

    pub fn u8(self) -> Result<u8, Malformed> {
        self.array().map(u8::from_ne_bytes)
    }

    pub fn u16(self) -> Result<u16, Malformed> {
        self.array().map(u16::from_ne_bytes)
    }

    /// Reads a number in network byte order.
    pub fn be16(self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    pub fn u32(self) -> Result<u32, Malformed> {
        self.array().map(u32::from_ne_bytes)
    }

    pub fn i32(self) -> Result<i32, Malformed> {
        self.array().map(i32::from_ne_bytes)
    }

    /// Reads exactly `N` bytes; another length is an error.
    pub fn array<const N: usize>(self) -> Result<[u8; N], Malformed> {
        let wrong = |_| Malformed("an attribute has an unexpected length");
        self.0.try_into().map_err(wrong)
    }

    /// Returns the bytes of a string up to its NUL, in any encoding.
    pub fn text(self) -> &'a [u8] {
        self.0.split(|byte| *byte == 0).next().unwrap_or_default()
    }

    pub fn nested(self) -> Result<Attributes<'a>, Malformed> {
        Attributes::read(self.0)
    }
}

/// Reads a 16-bit number from a message header.
pub fn half(body: &[u8], at: usize) -> Result<u16, Malformed> {
    let bytes = body.get(at..).and_then(|rest| rest.first_chunk());
    bytes.copied().map(u16::from_ne_bytes).ok_or(TOO_SHORT)
}

/// Reads a 32-bit number from a message header.
pub fn word(body: &[u8], at: usize) -> Result<u32, Malformed> {
    let bytes = body.get(at..).and_then(|rest| rest.first_chunk());
    bytes.copied().map(u32::from_ne_bytes).ok_or(TOO_SHORT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(length: u16, kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn attributes_are_found_among_others() {
        let bytes = [
            attribute(7, 20, b"\xff\xfe\0"),
            attribute(8, 4 | 0x8000, &1500u32.to_ne_bytes()),
            attribute(4, 9, b""),
        ]
        .concat();
        let attributes = Attributes::read(&bytes).unwrap();
        assert_eq!(attributes.get(4).unwrap().u32(), Ok(1500));
        assert!(attributes.get(4).unwrap().u16().is_err());
        assert_eq!(attributes.get(20).unwrap().text(), b"\xff\xfe");
        assert_eq!(attributes.get(9).unwrap().bytes(), b"");
        assert!(attributes.get(9).unwrap().u8().is_err());
        assert!(attributes.get(5).is_none());
        // The last attribute may lack its padding.
        assert!(Attributes::read(&bytes[..7]).is_ok());
    }

    #[test]
    fn a_truncated_sequence_is_malformed() {
        let bytes = [attribute(7, 20, b"abc"), attribute(8, 4, &[0; 4])].concat();
        for length in (1..7).chain(9..bytes.len()) {
            assert!(Attributes::read(&bytes[..length]).is_err(), "{length}");
        }
        for length in [0, 1, 3, 17, u16::MAX] {
            assert!(Attributes::read(&attribute(length, 1, &[0; 8])).is_err());
        }
        assert!(Attributes::behind(&bytes, 17).is_err());
        assert_eq!(word(&[1, 0, 0], 0), Err(TOO_SHORT));
        assert_eq!(word(&[1, 0, 0, 0], usize::MAX), Err(TOO_SHORT));
    }
}

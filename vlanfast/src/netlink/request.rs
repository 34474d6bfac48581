//! Builds netlink requests.

use netlink_packet_core::{NLA_HEADER_SIZE, NLM_F_DUMP, NLM_F_REQUEST};

use crate::state::snapshot::Ifindex;

/// The length of `struct nlmsghdr`.
pub const HEADER: usize = 16;

/// A request: `struct nlmsghdr`, the header of its message type, and attributes.
#[derive(Clone, Debug)]
pub struct Request {
    kind: u16,
    flags: u16,
    body: Vec<u8>,
}

impl Request {
    pub fn new(kind: u16, flags: u16, header: &[u8]) -> Self {
        Self {
            kind,
            flags: flags | NLM_F_REQUEST,
            body: header.to_vec(),
        }
    }

    /// A request about devices (`struct ifinfomsg`). Index 0 stands for any device.
    pub fn links(kind: u16, flags: u16, ifindex: Ifindex) -> Self {
        let mut header = [0; 16];
        header[4..8].copy_from_slice(&ifindex.0.to_ne_bytes());
        Self::new(kind, flags, &header)
    }

    /// A request about addresses (`struct ifaddrmsg`). Index 0 stands for any device.
    pub fn addresses(kind: u16, flags: u16, ifindex: Ifindex) -> Self {
        let mut header = [0; 8];
        header[4..].copy_from_slice(&ifindex.0.to_ne_bytes());
        Self::new(kind, flags, &header)
    }

    /// A request about namespace ids (`struct rtgenmsg`).
    pub fn ids(kind: u16, flags: u16) -> Self {
        Self::new(kind, flags, &[0; 4])
    }

    /// Adds an attribute.
    pub fn with(mut self, kind: u16, value: &[u8]) -> Self {
        push(&mut self.body, kind, value);
        self
    }

    /// Adds an attribute with nested attributes, given as pairs of type and value.
    pub fn with_nested(self, kind: u16, attributes: &[(u16, &[u8])]) -> Self {
        let mut all = vec![];
        for (kind, value) in attributes {
            push(&mut all, *kind, value);
        }
        self.with(kind | libc::NLA_F_NESTED as u16, &all)
    }

    /// Whether this is a dump, which is answered by any number of messages.
    pub const fn is_dump(&self) -> bool {
        self.flags & NLM_F_DUMP == NLM_F_DUMP
    }

    /// Serialises the request with a sequence number, which the answer repeats.
    pub fn bytes(&self, number: u32) -> Vec<u8> {
        let length = HEADER + self.body.len();
        let mut bytes = (length as u32).to_ne_bytes().to_vec();
        bytes.extend(self.kind.to_ne_bytes());
        bytes.extend(self.flags.to_ne_bytes());
        bytes.extend(number.to_ne_bytes());
        bytes.extend(0u32.to_ne_bytes());
        bytes.extend(&self.body);
        bytes
    }
}

fn push(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    bytes.extend(((NLA_HEADER_SIZE + value.len()) as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

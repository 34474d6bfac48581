//! A frame and its expected verdict.

use vlanfast_common::{Mac, Verdict};

use crate::{
    fixtures::tables::CONTAINER,
    net::packet::{frame, tag},
};

/// A frame with its expected verdict.
#[derive(Clone, Debug)]
pub struct FrameCase {
    pub name: &'static str,
    pub bytes: Vec<u8>,
    pub verdict: Verdict,
}

/// The frame is steered to the container [`CONTAINER`].
pub const STEERED: Verdict = Verdict::Steer {
    mac: Mac(CONTAINER),
};

/// Builds a frame on a VLAN; `rest` begins behind the VLAN tag.
pub fn named(
    name: &'static str,
    to: [u8; 6],
    vid: u16,
    rest: &[u8],
    verdict: Verdict,
) -> FrameCase {
    let rest = [&tag(0, vid)[..], rest].concat();
    let bytes = frame(to, &rest, 64);
    FrameCase {
        name,
        bytes,
        verdict,
    }
}

/// The frame is delivered to a MAC on this host and does not reach the wire.
pub const fn reflected(mac: [u8; 6]) -> Verdict {
    Verdict::Reflect { mac: Mac(mac) }
}

/// The frame goes to the wire, and a clone of it goes to a MAC on this host.
pub const fn cloned(mac: [u8; 6]) -> Verdict {
    Verdict::CloneToLocal { mac: Mac(mac) }
}

/// Builds a frame on VLAN 10 with a source MAC, which in ARP is the sender's hardware address as well.
pub fn sent(
    name: &'static str,
    from: [u8; 6],
    destination: [u8; 6],
    rest: &[u8],
    verdict: Verdict,
) -> FrameCase {
    let mut decided = named(name, destination, 10, rest, verdict);
    decided.bytes[6..12].copy_from_slice(&from);
    if rest.starts_with(&[8, 6]) {
        decided.bytes[26..32].copy_from_slice(&from);
    }
    decided
}

/// The EtherType and the first byte of an IPv4 packet; these cases need no more of it.
pub const IP: [u8; 3] = [8, 0, 0x45];
pub const PEERS: [u8; 4] = [10, 0, 10, 3];
pub const CONFLICTING: [u8; 4] = [10, 0, 10, 66];
pub const ELSEWHERE: [u8; 4] = [10, 0, 10, 77];
pub const IS_DOWN: [u8; 4] = [10, 0, 10, 78];

//! Layer 2 of a frame: Ethernet II and 802.3 (IEEE 802.3-2022 clause 3.2.6), tags (IEEE 802.1Q-2022 clause 9).

use core::mem::offset_of;

use network_types::{eth::EthHdr, vlan::VlanHdr};

use crate::{
    abi::{Cast, Mac, Vid, Vlan},
    frame::Frame,
    layer2::{Headers, Protocol, Tag},
};

/// The type field of an Ethernet header.
const ETHER_TYPE: usize = offset_of!(EthHdr, ether_type);
/// A TCI follows the TPID at once, as `VlanHdr` follows the type field that holds the TPID.
const TCI: usize = size_of::<u16>() + offset_of!(VlanHdr, tci);

/// Reads layer 2.
#[inline(always)]
pub fn parse(frame: &impl Frame) -> Headers {
    let cast = cast(frame);
    if let Some(tag) = frame.stripped_tag() {
        return tagged(frame, cast, tag, ETHER_TYPE);
    }
    match read_u16(frame, ETHER_TYPE) {
        None => headers(frame, Vlan::TRUNCATED, cast, ETHER_TYPE),
        Some(tpid) if Tag::is_tpid(tpid) => match read_u16(frame, ETHER_TYPE + TCI) {
            None => headers(frame, Vlan::TRUNCATED, cast, ETHER_TYPE + Tag::LEN),
            Some(tci) => tagged(frame, cast, Tag { tpid, tci }, ETHER_TYPE + Tag::LEN),
        },
        Some(_) => headers(frame, Vlan::UNTAGGED, cast, ETHER_TYPE),
    }
}

/// The headers of a frame by its outermost tag, behind which the type is at `type_offset`.
#[inline(always)]
fn tagged(frame: &impl Frame, cast: Cast, tag: Tag, type_offset: usize) -> Headers {
    if tag.tpid == Tag::S_TAG {
        return headers(frame, Vlan::SERVICE, cast, type_offset);
    }
    let vid = Vid::from_tci(tag.tci);
    // Of a priority tag before an 802.1Q tag, Linux drops the former and goes by the latter
    // (`__netif_receive_skb_core`, label `check_vlan_id`), and so do we.
    if vid == Vid::UNTAGGED && read_u16(frame, type_offset) == Some(Tag::C_TAG) {
        let vlan = match read_u16(frame, type_offset + TCI) {
            Some(tci) => Vlan::id(Vid::from_tci(tci)),
            None => Vlan::TRUNCATED,
        };
        return headers(frame, vlan, cast, type_offset + Tag::LEN);
    }
    headers(frame, Vlan::id(vid), cast, type_offset)
}

/// The headers of a frame whose VLAN is known, and whose type is at `type_offset`.
#[inline(always)]
fn headers(frame: &impl Frame, vlan: Vlan, cast: Cast, type_offset: usize) -> Headers {
    let number = read_u16(frame, type_offset);
    Headers {
        vlan,
        cast,
        protocol: number.map_or(Protocol::TRUNCATED, Protocol::new),
        network: type_offset + size_of::<u16>(),
    }
}

/// Reads the cast, of which the first two bytes say enough for a unicast frame. It is two, because LLVM turns "is there
/// a first byte" into a comparison from which the verifier learns nothing.
#[inline(always)]
fn cast(frame: &impl Frame) -> Cast {
    const DESTINATION: usize = offset_of!(EthHdr, dst_addr);
    match frame.read(DESTINATION) {
        // The I/G bit, as in `Mac::is_group`.
        Some([first, _]) if first & 1 == 1 => match frame.read(DESTINATION).map(Mac) {
            Some(Mac::BROADCAST) => Cast::Broadcast,
            Some(_) => Cast::Multicast,
            // A driver never hands on a frame as short as this; there is no address to go by.
            None => Cast::Unicast,
        },
        _ => Cast::Unicast,
    }
}

#[inline(always)]
fn read_u16(frame: &impl Frame, offset: usize) -> Option<u16> {
    frame.read(offset).map(u16::from_be_bytes)
}

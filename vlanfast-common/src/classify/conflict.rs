//! Conflict detection (RFC 5227 clause 2.4): hosts on the wire that claim an endpoint's address, or have its MAC.

use super::ownership::may_claim;
use crate::{
    abi::{Endpoint, EndpointKey, Mac, NeighborKey, Parent, Vid},
    frame::Frame,
    layer2::Headers,
    lookup::{Lookup, record_claim},
};

/// Detects a duplicate MAC: a frame from the wire tells the host of an address, and has a container's MAC as its source.
/// A host on the wire has that MAC, and what the host sends to it must not be reflected to the container.
///
/// On the trunk itself, frames that were reflected come in as well, so there the address must not be the container's for
/// certain. Group frames are not looked at: a loop in the network brings back a container's own.
#[inline(always)]
pub fn check_sender_mac(frame: &impl Frame, headers: &Headers, vid: Vid, tables: &impl Lookup) {
    let (Some(destination), Some(source)) = (frame.destination(), frame.source()) else {
        return;
    };
    let source = EndpointKey::new(vid, source);
    let parent = tables.parent(vid);
    if !parent.has(Parent::HOST_ACCESS) || parent.mac != destination.0 {
        return;
    }
    let Some(sender) = tables.endpoint(source).filter(Endpoint::uses_its_mac) else {
        return;
    };
    let Some(claim) = frame.message(headers, vid).says() else {
        return;
    };
    let may_be_its_own = match (sender.mode, vid) {
        // With VEPA, the switch sends back what the container says of itself.
        (Endpoint::VEPA, _) => {
            let neighbor = tables.neighbor(claim.0);
            neighbor.is_some_and(|neighbor| neighbor.mac == source.mac)
        }
        (_, Vid::UNTAGGED) => may_claim(claim, sender, source.mac(), tables),
        _ => false,
    };
    if may_be_its_own {
        return;
    }
    tables.record_duplicate_mac(source);
}

/// Detects an address conflict: a frame from the wire claims an address that an endpoint has, with another MAC. The claim
/// is recorded, unless the frame is an endpoint's own and comes back. Returns whether there is a conflict.
#[inline(always)]
pub fn check_sender_address(
    (key, mac): (NeighborKey, Mac),
    is_ours: bool,
    tables: &impl Lookup,
) -> bool {
    let conflicts = tables
        .neighbor(key)
        .is_some_and(|neighbor| neighbor.mac != mac.0);
    if conflicts && !is_ours && tables.endpoint(key.endpoint(mac.0)).is_none() {
        record_claim(key, mac, tables);
    }
    conflicts
}

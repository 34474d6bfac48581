//! `--steer`: a group frame that asks for one endpoint goes to that endpoint alone.

use super::storm::{BucketKind, limit};
use crate::{
    abi::{Endpoint, EndpointKey, Mac, Neighbor, Parent, Settings, Vid},
    lookup::{Lookup, tables_trusted},
    message::{Message, Target},
    verdict::Verdict,
};

/// Steers a group frame to the endpoint that it asks for, if that is certain. Otherwise, and where everyone has to hear
/// it, it goes to everyone within the VLAN's limit.
#[inline(always)]
pub fn group(message: Message, concerns_all: bool, vid: Vid, tables: &impl Lookup) -> Verdict {
    let parent = tables.parent(vid);
    if parent.ifindex == 0 {
        return Verdict::Pass;
    }
    let (found, mac, bucket) = find(message, vid, tables);
    let steers = tables.steers() && !concerns_all && !parent.has(Parent::NO_STEER);
    match found {
        // It is not certain where the tables may lack an endpoint.
        Found::One if steers && tables_trusted(tables, Settings::ENDPOINTS) => {
            Verdict::Steer { mac }
        }
        Found::Conflict if !parent.has(Parent::NO_STEER) => {
            limit(Verdict::Conflict, bucket, parent, vid, tables)
        }
        _ => limit(Verdict::Pass, bucket, parent, vid, tables),
    }
}

/// How many endpoints a group frame may be for.
#[derive(Clone, Copy)]
enum Found {
    One,
    /// Two endpoints claim the address or the MAC.
    Conflict,
    /// Any number, on this host or elsewhere.
    Any,
}

/// Finds the endpoint that a frame asks for: its MAC if it is one, and the frame's bucket if it goes to everyone.
#[inline(always)]
fn find(message: Message, vid: Vid, tables: &impl Lookup) -> (Found, Mac, BucketKind) {
    const DOUBTS: u16 = Neighbor::DOWN | Neighbor::FOREIGN;
    let none = Mac::default();
    match message.asks() {
        Some(Target::Address(key)) => match tables.neighbor(key) {
            Some(neighbor) if neighbor.has(Neighbor::CONFLICT) => {
                (Found::Conflict, none, BucketKind::Known)
            }
            Some(neighbor) if neighbor.is_doubted(DOUBTS) => (Found::Any, none, BucketKind::Known),
            Some(neighbor) => (Found::One, Mac(neighbor.mac), BucketKind::Known),
            None => match tables.neighbor(key.anywhere()) {
                Some(_) => (Found::Any, none, BucketKind::Known),
                None => (Found::Any, none, BucketKind::Absent),
            },
        },
        Some(Target::Mac(mac)) => match tables.endpoint(EndpointKey::new(vid, mac)) {
            Some(endpoint) if endpoint.has(Endpoint::CONFLICT) => {
                (Found::Conflict, none, BucketKind::Group)
            }
            Some(_) => (Found::One, mac, BucketKind::Group),
            None => (Found::Any, none, BucketKind::Group),
        },
        None => (Found::Any, none, BucketKind::Group),
    }
}

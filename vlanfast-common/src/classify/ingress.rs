//! What comes in: steered, limited, shed or delivered.

use super::{Tables, are_true};
use crate::{
    Cast, Endpoint, EndpointKey, Frame, Headers, Mac, Neighbor, NeighborKey, Parent, Reason,
    Settings, Sought, Verdict, Vid, detour, sought,
};

#[inline(always)]
pub fn classify(frame: &impl Frame, headers: &Headers, vid: Vid, tables: &impl Tables) -> Verdict {
    if tables.gives_host_access() && vid == Vid::UNTAGGED && is_again(frame, tables) {
        return Verdict::Again;
    }
    match headers.cast {
        Cast::Unicast => deliver(frame, headers, vid, tables),
        Cast::Broadcast | Cast::Multicast => group(frame, headers, vid, tables),
    }
}

/// Whether egress has reflected this frame to the trunk itself: by its addresses it is what the host and its
/// containers say to each other.
#[inline(always)]
fn is_again(frame: &impl Frame, tables: &impl Tables) -> bool {
    let vid = Vid::UNTAGGED;
    let (Some(destination), Some(source)) = (frame.read(0).map(Mac), frame.read(6).map(Mac)) else {
        return false;
    };
    if !tables.parent(vid).has(Parent::HOST_ACCESS) {
        return false;
    }
    let Some(sender) = tables.endpoint(EndpointKey::new(vid, source)) else {
        return false;
    };
    match tables.endpoint(EndpointKey::new(vid, destination)) {
        Some(taker) => taker.is_of_the_host() != sender.is_of_the_host(),
        None => sender.is_of_the_host() && destination.is_group(),
    }
}

/// Why nobody takes a frame, if that is sure.
#[inline(always)]
pub fn shed(
    frame: &impl Frame,
    headers: &Headers,
    vid: Vid,
    tables: &impl Tables,
) -> Option<Reason> {
    // What looks untagged may have had a tag that the hook was not shown.
    if vid == Vid::UNTAGGED {
        return None;
    }
    let parent = tables.parent(vid);
    if parent.is_absent() {
        let are_true = are_true(tables, Settings::VLANS | Settings::CHANGING);
        return are_true.then_some(Reason::ShedVlan);
    }
    let is_for_one = tables.sheds_macs() && headers.cast == Cast::Unicast;
    // The takers of stacked VLANs are none of the tables'.
    if !is_for_one || parent.has(Parent::ALONE) || headers.protocol.is_stacked() {
        return None;
    }
    let key = EndpointKey::new(vid, Mac(frame.read(0)?));
    let is_nobodys = parent.ifindex != 0 && tables.endpoint(key).is_none();
    (is_nobodys && are_true(tables, Settings::ENDPOINTS | Settings::CHANGING))
        .then_some(Reason::ShedMac)
}

/// A frame to one taker: past the device of the VLAN, if it would come to the taker's own anyway.
#[inline(always)]
fn deliver(frame: &impl Frame, headers: &Headers, vid: Vid, tables: &impl Tables) -> Verdict {
    // The takers of stacked VLANs are none of the tables'.
    if !tables.delivers() || headers.protocol.is_stacked() {
        return Verdict::Pass;
    }
    let Some(destination) = frame.read(0).map(Mac) else {
        return Verdict::Pass;
    };
    let Some(taker) = tables.endpoint(EndpointKey::new(vid, destination)) else {
        return Verdict::Pass;
    };
    if taker.has(Endpoint::HOST) || detour(tables.parent(vid), taker).is_some() {
        return Verdict::Pass;
    }
    // The kernel's own path finds who has the MAC since; a redirect to a device that has gone finds nobody.
    match are_true(tables, Settings::ENDPOINTS | Settings::CHANGING) {
        true => Verdict::Deliver {
            ifindex: taker.ifindex,
        },
        false => Verdict::Pass,
    }
}

/// A frame to a group: to the one that it seeks, if that is known; within the limit to all, if it is not.
#[inline(always)]
fn group(frame: &impl Frame, headers: &Headers, vid: Vid, tables: &impl Tables) -> Verdict {
    if !tables.steers() && tables.storm_limit() == 0 {
        return Verdict::Pass;
    }
    let Some(sought) = sought(frame, headers, vid) else {
        return Verdict::Pass;
    };
    let parent = tables.parent(vid);
    if parent.ifindex == 0 || parent.has(Parent::ALONE) {
        return Verdict::Pass;
    }
    let taker = match sought {
        Sought::Address(key) => match tables.neighbor(key) {
            Some(taker) if taker.has(Neighbor::CONFLICT) => return Verdict::Disputed,
            Some(taker) if taker.has(Neighbor::DOWN) => return Verdict::Pass,
            Some(taker) => Mac(taker.mac),
            None => return limit(key, parent, vid, tables),
        },
        Sought::Mac(mac) => match tables.endpoint(EndpointKey::new(vid, mac)) {
            Some(taker) if taker.has(Endpoint::CONFLICT) => return Verdict::Disputed,
            Some(_) => mac,
            None => return Verdict::Pass,
        },
    };
    steer(frame, vid, taker, tables)
}

#[inline(always)]
fn steer(frame: &impl Frame, vid: Vid, taker: Mac, tables: &impl Tables) -> Verdict {
    let Some(source) = frame.read(6).map(Mac) else {
        return Verdict::Pass;
    };
    // Our own frame comes back, from a switch that reflects it: macvlan goes by its sender.
    let is_ours = tables.endpoint(EndpointKey::new(vid, source)).is_some();
    if !tables.steers() || is_ours {
        return Verdict::Pass;
    }
    // Where one of ours may be missing, that is not sure.
    match are_true(tables, Settings::ENDPOINTS) {
        true => Verdict::Steer { mac: taker },
        false => Verdict::Pass,
    }
}

/// A frame that asks for an absent host.
#[inline(always)]
fn limit(key: NeighborKey, parent: Parent, vid: Vid, tables: &impl Tables) -> Verdict {
    let rate = tables.storm_limit();
    if rate == 0 || parent.has(Parent::UNLIMITED) || tables.neighbor(key.anywhere()).is_some() {
        return Verdict::Pass;
    }
    let Some(bucket) = tables.bucket(vid) else {
        return Verdict::Pass;
    };
    if !are_true(tables, Settings::NEIGHBORS) || bucket.admit(tables.now(), rate) {
        return Verdict::Pass;
    }
    Verdict::Drop(Reason::Storm)
}

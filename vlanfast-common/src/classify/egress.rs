//! What leaves, and is for this host: a macvlan and the host below it do not hear each other otherwise.

use super::{Tables, are_true};
use crate::{
    Cast, Endpoint, EndpointKey, Frame, Headers, Mac, Neighbor, Parent, Sought, Verdict, Vid,
    announces, sought,
};

#[inline(always)]
pub fn classify(frame: &impl Frame, headers: &Headers, vid: Vid, tables: &impl Tables) -> Verdict {
    let (Some(destination), Some(source)) = (frame.read(0).map(Mac), frame.read(6).map(Mac)) else {
        return Verdict::Pass;
    };
    match tables.gives_host_access() {
        true => reflect(frame, headers, vid, (destination, source), tables),
        false => Verdict::Pass,
    }
}

/// Host access: what one side sends to the other.
#[inline(always)]
fn reflect(
    frame: &impl Frame,
    headers: &Headers,
    vid: Vid,
    (destination, source): (Mac, Mac),
    tables: &impl Tables,
) -> Verdict {
    let parent = tables.parent(vid);
    if parent.ifindex == 0 || !parent.has(Parent::UP) || !parent.has(Parent::HOST_ACCESS) {
        return Verdict::Pass;
    }
    let taker = match headers.cast {
        Cast::Unicast => destination,
        Cast::Broadcast | Cast::Multicast => match sought(frame, headers, vid) {
            Some(Sought::Address(key)) => match tables.neighbor(key) {
                Some(taker) if !taker.has(Neighbor::CONFLICT | Neighbor::DOWN) => Mac(taker.mac),
                _ => return Verdict::Pass,
            },
            None if announces(frame, headers) => {
                return copy(parent, destination, source, vid, tables);
            }
            // DHCP's servers and clients do not find each other across.
            None | Some(Sought::Mac(_)) => return Verdict::Pass,
        },
    };
    // Most of what leaves is for the wire, and this is the one question that it is asked.
    let Some(taken_by) = certain(taker, vid, tables) else {
        return Verdict::Pass;
    };
    let Some(sent_by) = certain(source, vid, tables) else {
        return Verdict::Pass;
    };
    // Container to container is as the mode of the macvlan has it; and a MAC alone, without an address, is one
    // that stands by for another host's, as keepalived has them.
    let is_across = taken_by.is_of_the_host() != sent_by.is_of_the_host();
    if !is_across || taken_by.has(Endpoint::SILENT) || !are_true(tables, 0) {
        return Verdict::Pass;
    }
    Verdict::Reflect {
        // The device goes by its own MAC, also for those that it takes besides (the trunk's).
        mac: match taken_by.has(Endpoint::HOST) {
            true => Mac(parent.mac),
            false => taker,
        },
    }
}

/// An announcement: of the host's to all containers, of a container's to the host alone, because the other
/// containers have heard it, or shall not.
#[inline(always)]
fn copy(parent: Parent, destination: Mac, source: Mac, vid: Vid, tables: &impl Tables) -> Verdict {
    let Some(sent_by) = certain(source, vid, tables) else {
        return Verdict::Pass;
    };
    let mac = match sent_by.is_of_the_host() {
        true => destination,
        false => Mac(parent.mac),
    };
    if !are_true(tables, 0) {
        return Verdict::Pass;
    }
    Verdict::Copy { mac }
}

/// Who has a MAC on a VLAN, unless two have it.
#[inline(always)]
fn certain(mac: Mac, vid: Vid, tables: &impl Tables) -> Option<Endpoint> {
    let endpoint = tables.endpoint(EndpointKey::new(vid, mac))?;
    (!endpoint.has(Endpoint::CONFLICT)).then_some(endpoint)
}

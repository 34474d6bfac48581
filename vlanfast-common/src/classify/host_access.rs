//! `--host-access`: what the host and its containers send to each other. A macvlan and the host below it do not hear each
//! other otherwise.

use super::ownership::{is_sole_owner, may_claim, sole_endpoint};
use crate::{
    abi::{Cast, Endpoint, EndpointKey, Mac, NeighborKey, Parent, Vid},
    frame::Frame,
    layer2::{Headers, Protocol},
    lookup::{Lookup, tables_trusted},
    message::{Message, Target},
    parse::hides,
    verdict::Verdict,
};

/// Reflects a frame that leaves and is for the other side, or clones it to the other side if it is for everyone.
#[inline(always)]
pub fn reflect(
    frame: &impl Frame,
    headers: &Headers,
    vid: Vid,
    (destination, source): (Mac, Mac),
    tables: &impl Lookup,
) -> Verdict {
    let parent = tables.parent(vid);
    if parent.ifindex == 0 || !parent.has(Parent::UP) || !parent.has(Parent::HOST_ACCESS) {
        return Verdict::Pass;
    }
    if headers.cast == Cast::Unicast {
        // Most frames that leave are for the wire, and this lookup is all that they cost.
        let Some((mac, sender)) = other_side(destination, source, parent, vid, tables) else {
            return Verdict::Pass;
        };
        let crosses =
            is_truthful(frame, headers, vid, sender, source, tables) && tables_trusted(tables, 0);
        return match crosses {
            true => Verdict::Reflect { mac },
            false => Verdict::Pass,
        };
    }
    let message = frame.message(headers, vid);
    match message.asks() {
        Some(Target::Address(key)) => request(key, message, parent, source, tables),
        None if message.announces() => announcement(message, parent, (destination, source), tables),
        // DHCP servers and clients do not find each other across.
        _ => Verdict::Pass,
    }
}

/// Whether egress has reflected an untagged frame to the trunk itself, where it comes in now: by its addresses, it is what
/// the host and its containers send to each other.
#[inline(always)]
pub fn is_hairpin(frame: &impl Frame, tables: &impl Lookup) -> bool {
    let vid = Vid::UNTAGGED;
    let (Some(destination), Some(source)) = (frame.destination(), frame.source()) else {
        return false;
    };
    if !tables.parent(vid).has(Parent::HOST_ACCESS) {
        return false;
    }
    // Nothing is reflected of or to a MAC that two have.
    let Some(sender) = sole_endpoint(source, vid, tables) else {
        return false;
    };
    match tables.endpoint(EndpointKey::new(vid, destination)) {
        Some(receiver) if receiver.has(Endpoint::CONFLICT) => false,
        Some(receiver) => receiver.is_of_the_host() != sender.is_of_the_host(),
        None => sender.is_of_the_host() && destination.is_group(),
    }
}

/// Clones a frame to an endpoint of this host, if the tables are kept in sync.
#[inline(always)]
fn clone_to_local(mac: Mac, tables: &impl Lookup) -> Verdict {
    match tables_trusted(tables, 0) {
        true => Verdict::CloneToLocal { mac },
        false => Verdict::Pass,
    }
}

/// The MAC by which a frame from one side reaches the other, and its sender.
#[inline(always)]
fn other_side(
    destination: Mac,
    source: Mac,
    parent: Parent,
    vid: Vid,
    tables: &impl Lookup,
) -> Option<(Mac, Endpoint)> {
    let receiver = sole_endpoint(destination, vid, tables)?;
    let sender = sole_endpoint(source, vid, tables)?;
    // Between containers the mode of the macvlan decides. A macvlan without an address stands by for another host's, as
    // keepalived's does, and one that is down receives nothing.
    let is_across = receiver.is_of_the_host() != sender.is_of_the_host();
    // The host's device receives by its own MAC what is for the trunk's.
    let mac = match receiver.has(Endpoint::HOST) {
        true => Mac(parent.mac),
        false => destination,
    };
    (is_across && !receiver.has(Endpoint::NO_ADDRESS | Endpoint::DOWN)).then_some((mac, sender))
}

/// A request goes to the other side as well as to the wire, where another host may have the address too.
#[inline(always)]
fn request(
    key: NeighborKey,
    message: Message,
    parent: Parent,
    source: Mac,
    tables: &impl Lookup,
) -> Verdict {
    let Some(neighbor) = tables.neighbor(key) else {
        return Verdict::Pass;
    };
    let Some((mac, sender)) = other_side(Mac(neighbor.mac), source, parent, key.vid(), tables)
    else {
        return Verdict::Pass;
    };
    let claim = message.says();
    if claim.is_some_and(|claim| !may_claim(claim, sender, source, tables))
        || !is_sole_owner(key, neighbor, tables)
    {
        return Verdict::Pass;
    }
    clone_to_local(mac, tables)
}

/// An announcement of the host goes to all containers. One of a container goes to the host alone: whether the other
/// containers hear it is the macvlan's to decide. Its sender may have a MAC that the tables do not have yet.
#[inline(always)]
fn announcement(
    message: Message,
    parent: Parent,
    (destination, source): (Mac, Mac),
    tables: &impl Lookup,
) -> Verdict {
    let Some(claim) = message.says() else {
        return Verdict::Pass;
    };
    let (key, vid) = (claim.0, claim.0.vid());
    let (owner, is_true) = match tables.endpoint(EndpointKey::new(vid, source)) {
        Some(sender) => {
            let is_alone = !sender.has(Endpoint::CONFLICT);
            (sender, is_alone && may_claim(claim, sender, source, tables))
        }
        None => {
            let Some(neighbor) = tables.neighbor(key) else {
                return Verdict::Pass;
            };
            let Some(owner) = tables.endpoint(key.endpoint(neighbor.mac)) else {
                return Verdict::Pass;
            };
            (
                owner,
                owner.has(Endpoint::HOST) || is_sole_owner(key, neighbor, tables),
            )
        }
    };
    match owner.is_of_the_host() {
        _ if !is_true => Verdict::Pass,
        true => clone_to_local(destination, tables),
        false => clone_to_local(Mac(parent.mac), tables),
    }
}

/// Whether a frame claims nothing but what its sender has. A claim that cannot be read counts as false.
#[inline(always)]
fn is_truthful(
    frame: &impl Frame,
    headers: &Headers,
    vid: Vid,
    sender: Endpoint,
    source: Mac,
    tables: &impl Lookup,
) -> bool {
    let is_arp = headers.protocol == Protocol::ARP;
    if !is_arp && headers.protocol != Protocol::IPV6 {
        return true;
    }
    match frame.message(headers, vid).says() {
        Some(claim) => may_claim(claim, sender, source, tables),
        None => !is_arp && !hides(frame, headers),
    }
}

//! What leaves: what is for this host, because a macvlan and the host below it do not hear each other otherwise; and
//! who sends that nobody knows.

use super::{Tables, tables_trusted, is_claimed, is_the_hosts_tag};
use crate::{
    Cast, Endpoint, EndpointKey, Frame, Headers, Mac, Message, Neighbor, NeighborKey, Parent,
    Protocol, Target, Verdict, Vid, hides,
};

#[inline(always)]
pub fn classify(frame: &impl Frame, headers: &Headers, vid: Vid, tables: &impl Tables) -> Verdict {
    let (Some(destination), Some(source)) = (frame.read(0).map(Mac), frame.read(6).map(Mac)) else {
        return Verdict::Pass;
    };
    if tables.sheds_vlans() {
        welcome(source, vid, tables);
    }
    match tables.gives_host_access() && is_the_hosts_tag(headers) {
        true => reflect(frame, headers, vid, (destination, source), tables),
        false => Verdict::Pass,
    }
}

/// Where frames for nobody are shed: who sends one is somebody, before the tables have him.
#[inline(always)]
fn welcome(source: Mac, vid: Vid, tables: &impl Tables) {
    // Untagged frames are not shed.
    if vid == Vid::UNTAGGED || source.is_group() || source == Mac::default() {
        return;
    }
    let is_known = match tables.parent(vid).is_absent() {
        true => false,
        false => !tables.sheds_macs() || tables.endpoint(EndpointKey::new(vid, source)).is_some(),
    };
    if !is_known && let Some(buckets) = tables.buckets(vid) {
        buckets.welcome(tables.now());
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
    if headers.cast == Cast::Unicast {
        // Most of what leaves is for the wire, and this is the one question that it is asked.
        let Some((mac, sender)) = across(destination, source, parent, vid, tables) else {
            return Verdict::Pass;
        };
        let crosses = may_say(frame, headers, vid, sender, source, tables) && tables_trusted(tables, 0);
        return match crosses {
            true => Verdict::Reflect { mac },
            false => Verdict::Pass,
        };
    }
    let message = frame.message(headers, vid);
    match message.asks() {
        Some(Target::Address(key)) => ask(key, message, parent, source, tables),
        None if message.announces() => announce(message, parent, (destination, source), tables),
        // DHCP's servers and clients do not find each other across.
        _ => Verdict::Pass,
    }
}

/// A copy, if the tables are true.
#[inline(always)]
fn copy(mac: Mac, tables: &impl Tables) -> Verdict {
    match tables_trusted(tables, 0) {
        true => Verdict::CloneToLocal { mac },
        false => Verdict::Pass,
    }
}

/// The MAC by which a frame from one side reaches the other, and who sends it.
#[inline(always)]
fn across(
    receiver: Mac,
    source: Mac,
    parent: Parent,
    vid: Vid,
    tables: &impl Tables,
) -> Option<(Mac, Endpoint)> {
    let taken_by = certain(receiver, vid, tables)?;
    let sent_by = certain(source, vid, tables)?;
    // Container to container is as the mode of the macvlan has it; and a MAC alone, without an address, is one
    // that stands by for another host's, as keepalived has them. One that is down takes nothing.
    let is_across = taken_by.is_of_the_host() != sent_by.is_of_the_host();
    // The device goes by its own MAC, also for those that it takes besides (the trunk's).
    let mac = match taken_by.has(Endpoint::HOST) {
        true => Mac(parent.mac),
        false => receiver,
    };
    (is_across && !taken_by.has(Endpoint::NO_ADDRESS | Endpoint::DOWN)).then_some((mac, sent_by))
}

/// A request: to the other side as well as to the wire, where somebody may have the address too.
#[inline(always)]
fn ask(
    key: NeighborKey,
    message: Message,
    parent: Parent,
    source: Mac,
    tables: &impl Tables,
) -> Verdict {
    let Some(receiver) = tables.neighbor(key) else {
        return Verdict::Pass;
    };
    let Some((mac, sender)) = across(Mac(receiver.mac), source, parent, key.vid(), tables) else {
        return Verdict::Pass;
    };
    let says = message.says();
    if says.is_some_and(|said| !is_his(said, sender, source, tables)) || !owns(key, receiver, tables) {
        return Verdict::Pass;
    }
    copy(mac, tables)
}

/// An announcement: of the host's to all containers, of a container's to the host alone, because the other
/// containers have heard it, or shall not. Its sender may have a MAC that the tables don't have yet.
#[inline(always)]
fn announce(
    message: Message,
    parent: Parent,
    (destination, source): (Mac, Mac),
    tables: &impl Tables,
) -> Verdict {
    let Some(said) = message.says() else {
        return Verdict::Pass;
    };
    let (key, vid) = (said.0, said.0.vid());
    let (owner, is_his) = match tables.endpoint(EndpointKey::new(vid, source)) {
        Some(sender) => {
            let is_alone = !sender.has(Endpoint::CONFLICT);
            (sender, is_alone && is_his(said, sender, source, tables))
        }
        None => {
            let Some(receiver) = tables.neighbor(key) else {
                return Verdict::Pass;
            };
            let Some(owner) = tables.endpoint(key.endpoint(receiver.mac)) else {
                return Verdict::Pass;
            };
            (owner, owner.has(Endpoint::HOST) || owns(key, receiver, tables))
        }
    };
    match owner.is_of_the_host() {
        _ if !is_his => Verdict::Pass,
        true => copy(destination, tables),
        false => copy(Mac(parent.mac), tables),
    }
}

/// Whether what a frame that crosses says of its sender is true. What can't be read is not.
#[inline(always)]
fn may_say(
    frame: &impl Frame,
    headers: &Headers,
    vid: Vid,
    sender: Endpoint,
    source: Mac,
    tables: &impl Tables,
) -> bool {
    let is_arp = headers.protocol == Protocol::ARP;
    if !is_arp && headers.protocol != Protocol::IPV6 {
        return true;
    }
    match frame.message(headers, vid).says() {
        Some(said) => is_his(said, sender, source, tables),
        None => !is_arp && !hides(frame, headers),
    }
}

/// Whether an address may be said to be the sender's. A container has to have it for sure, and to speak for itself;
/// the host may say so of what no container has, or of what is known of another device, whose addresses it
/// answers for too.
#[inline(always)]
pub(super) fn is_his(
    (key, mac): (NeighborKey, Mac),
    sender: Endpoint,
    source: Mac,
    tables: &impl Tables,
) -> bool {
    let Some(receiver) = tables.neighbor(key) else {
        return sender.is_of_the_host();
    };
    if !sender.is_of_the_host() {
        return mac == source && receiver.mac == source.0 && owns(key, receiver, tables);
    }
    let owner = tables.endpoint(key.endpoint(receiver.mac));
    owner.is_some_and(|owner| owner.is_of_the_host()) || tables.neighbor(key.anywhere()).is_some()
}

/// Whether an address is its receiver's for sure, so that the wire need not be asked first.
#[inline(always)]
fn owns(key: NeighborKey, receiver: Neighbor, tables: &impl Tables) -> bool {
    !receiver.is_doubted(Neighbor::UNCERTAIN)
        && (receiver.has(Neighbor::ASSIGNED) || !is_claimed(key, tables))
}

/// Who has a MAC on a VLAN, unless two have it.
#[inline(always)]
fn certain(mac: Mac, vid: Vid, tables: &impl Tables) -> Option<Endpoint> {
    let endpoint = tables.endpoint(EndpointKey::new(vid, mac))?;
    (!endpoint.has(Endpoint::CONFLICT)).then_some(endpoint)
}

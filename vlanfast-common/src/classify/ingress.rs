//! What comes in: steered, limited, shed or delivered.

use super::{Tables, tables_trusted, egress::is_his, goes_past_the_wire};
use crate::{
    Cast, Claim, Endpoint, EndpointKey, Frame, Headers, Mac, Message, Neighbor, NeighborKey,
    Parent, Protocol, Reason, Settings, Target, Verdict, Vid, redirect_blocked_by,
};

#[inline(always)]
pub fn classify(frame: &impl Frame, headers: &Headers, vid: Vid, tables: &impl Tables) -> Verdict {
    if tables.gives_host_access() && vid == Vid::UNTAGGED && is_again(frame, tables) {
        return Verdict::Hairpin;
    }
    let is_for_one = headers.cast == Cast::Unicast;
    let is_limited = tables.storm_limit() != 0 || tables.group_limit() != 0;
    // ARP to one receiver may tell him of an address that another has here. What goes past the wire has to know.
    let is_read = match is_for_one {
        true => goes_past_the_wire(tables) && headers.protocol == Protocol::ARP,
        false => tables.steers() || is_limited || goes_past_the_wire(tables),
    };
    if is_read && let Some(source) = frame.read(6).map(Mac) {
        let message = frame.message(headers, vid);
        // Our own frame comes back, from a switch that reflects it: macvlan goes by its sender.
        let is_ours = tables.endpoint(EndpointKey::new(vid, source)).is_some();
        let said = message.says();
        let is_heard = said.is_some_and(|said| hear(said, is_ours, tables));
        if !is_for_one {
            return group(message, is_ours || is_heard, vid, tables);
        }
    }
    match is_for_one {
        true => deliver(frame, headers, vid, tables),
        false => Verdict::Pass,
    }
}

/// Somebody tells the host of an address, from a container's MAC: if the frame came from the wire, somebody there has that
/// MAC, and what the host sends him must not cross. On the trunk itself, what crossed comes in as well; but only where the
/// address is the container's for sure. Nobody is met in a group frame, which a loop brings back.
#[inline(always)]
pub fn meet(frame: &impl Frame, headers: &Headers, vid: Vid, tables: &impl Tables) {
    let (Some(destination), Some(source)) = (frame.read(0).map(Mac), frame.read(6).map(Mac)) else {
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
    let Some(said) = frame.message(headers, vid).says() else {
        return;
    };
    let may_be_its_own = match (sender.mode, vid) {
        // The switch sends back what it says of itself.
        (Endpoint::VEPA, _) => {
            let receiver = tables.neighbor(said.0);
            receiver.is_some_and(|receiver| receiver.mac == source.mac)
        }
        (_, Vid::UNTAGGED) => is_his(said, sender, source.mac(), tables),
        _ => false,
    };
    if may_be_its_own {
        return;
    }
    tables.note_double(source);
}

/// Notes that somebody on the wire has a receiver's MAC, and marks it at once.
#[inline(always)]
pub fn note_double(receiver: EndpointKey, tables: &impl Tables) {
    tables.mark_conflict(receiver);
    note(NeighborKey::of_mac(receiver), receiver.mac(), tables);
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
    // Of a MAC that two have, nothing crosses.
    let is_one = |it: &Endpoint| !it.has(Endpoint::CONFLICT);
    let Some(sender) = tables
        .endpoint(EndpointKey::new(vid, source))
        .filter(is_one)
    else {
        return false;
    };
    match tables.endpoint(EndpointKey::new(vid, destination)) {
        Some(receiver) if !is_one(&receiver) => false,
        Some(receiver) => receiver.is_of_the_host() != sender.is_of_the_host(),
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
    let (kind, reason) = match parent.is_absent() {
        true => (Settings::VLANS, Reason::ShedVlan),
        false => (Settings::ENDPOINTS, Reason::ShedMac),
    };
    if reason == Reason::ShedMac {
        let is_for_one = tables.sheds_macs() && headers.cast == Cast::Unicast;
        // The receivers of stacked VLANs are none of the tables'.
        if !is_for_one || parent.has(Parent::UNSHED) || headers.protocol.is_stacked() {
            return None;
        }
        let key = EndpointKey::new(vid, Mac(frame.read(0)?));
        if parent.ifindex == 0 || tables.endpoint(key).is_some() {
            return None;
        }
    }
    let has_newcomers = || {
        let buckets = tables.buckets(vid);
        buckets.is_none_or(|buckets| buckets.has_newcomers(|| tables.now()))
    };
    (tables_trusted(tables, kind | Settings::CHANGING) && !has_newcomers()).then_some(reason)
}

/// A frame to one receiver: past the device of the VLAN, if it would come to the receiver's own anyway.
#[inline(always)]
fn deliver(frame: &impl Frame, headers: &Headers, vid: Vid, tables: &impl Tables) -> Verdict {
    // The receivers of stacked VLANs are none of the tables'.
    if !tables.delivers() || headers.protocol.is_stacked() {
        return Verdict::Pass;
    }
    let Some(destination) = frame.read(0).map(Mac) else {
        return Verdict::Pass;
    };
    let Some(receiver) = tables.endpoint(EndpointKey::new(vid, destination)) else {
        return Verdict::Pass;
    };
    if receiver.has(Endpoint::HOST) || redirect_blocked_by(tables.parent(vid), receiver).is_some() {
        return Verdict::Pass;
    }
    // The kernel's own path finds who has the MAC since; a redirect to a device that has gone finds nobody.
    match tables_trusted(tables, Settings::ENDPOINTS | Settings::CHANGING) {
        true => Verdict::Deliver {
            ifindex: receiver.ifindex,
        },
        false => Verdict::Pass,
    }
}

/// A frame to a group: to the one that it seeks, if that is sure; within a limit to everyone, if not, or if all have to
/// hear of it.
#[inline(always)]
fn group(message: Message, concerns_all: bool, vid: Vid, tables: &impl Tables) -> Verdict {
    let parent = tables.parent(vid);
    if parent.ifindex == 0 {
        return Verdict::Pass;
    }
    let (receivers, mac, share) = seek(message, vid, tables);
    let steers = tables.steers() && !concerns_all && !parent.has(Parent::NO_STEER);
    match receivers {
        // Where one of ours may be missing, that is not sure.
        Receivers::One if steers && tables_trusted(tables, Settings::ENDPOINTS) => Verdict::Steer { mac },
        Receivers::Two if !parent.has(Parent::NO_STEER) => {
            to_everyone(Verdict::Conflict, share, parent, vid, tables)
        }
        _ => to_everyone(Verdict::Pass, share, parent, vid, tables),
    }
}

/// Who takes a group frame.
#[derive(Clone, Copy)]
enum Receivers {
    One,
    /// Two here claim the address or the MAC.
    Two,
    /// Anyone may be.
    Any,
}

/// Of which of the [`Buckets`](crate::Buckets) a frame is that goes to everyone.
#[derive(Clone, Copy)]
enum Share {
    Absent,
    Known,
    Group,
}

/// Who takes it, the MAC of the one, and its share if it goes to everyone.
#[inline(always)]
fn seek(message: Message, vid: Vid, tables: &impl Tables) -> (Receivers, Mac, Share) {
    const DOUBTS: u16 = Neighbor::DOWN | Neighbor::FOREIGN;
    let nobody = Mac::default();
    match message.asks() {
        Some(Target::Address(key)) => match tables.neighbor(key) {
            Some(receiver) if receiver.has(Neighbor::CONFLICT) => (Receivers::Two, nobody, Share::Known),
            Some(receiver) if receiver.is_doubted(DOUBTS) => (Receivers::Any, nobody, Share::Known),
            Some(receiver) => (Receivers::One, Mac(receiver.mac), Share::Known),
            None => match tables.neighbor(key.anywhere()) {
                Some(_) => (Receivers::Any, nobody, Share::Known),
                None => (Receivers::Any, nobody, Share::Absent),
            },
        },
        Some(Target::Mac(mac)) => match tables.endpoint(EndpointKey::new(vid, mac)) {
            Some(receiver) if receiver.has(Endpoint::CONFLICT) => (Receivers::Two, nobody, Share::Group),
            Some(_) => (Receivers::One, mac, Share::Group),
            None => (Receivers::Any, nobody, Share::Group),
        },
        None => (Receivers::Any, nobody, Share::Group),
    }
}

/// The one exit of whatever goes to everyone, by whatever way it came here: within the limit.
#[inline(always)]
fn to_everyone(
    verdict: Verdict,
    share: Share,
    parent: Parent,
    vid: Vid,
    tables: &impl Tables,
) -> Verdict {
    let (rate, lacking, reason) = match share {
        // Who may have a place that the tables lack is not absent for sure.
        Share::Absent => (tables.storm_limit(), Settings::NEIGHBORS, Reason::Storm),
        Share::Known => (tables.storm_limit(), 0, Reason::Storm),
        Share::Group => (tables.group_limit(), 0, Reason::Group),
    };
    if rate == 0 || parent.has(Parent::UNLIMITED) || !tables_trusted(tables, lacking) {
        return verdict;
    }
    let Some(buckets) = tables.buckets(vid) else {
        return verdict;
    };
    let bucket = match share {
        Share::Absent => &buckets.absent,
        Share::Known => &buckets.known,
        Share::Group => &buckets.group,
    };
    match bucket.admit(tables.now(), rate) {
        true => verdict,
        false => Verdict::Drop(reason),
    }
}

/// Somebody on the wire says that he has an address: whether a receiver here has it, who has another MAC. That is noted,
/// unless the frame is one of ours that comes back.
#[inline(always)]
fn hear((key, mac): (NeighborKey, Mac), is_ours: bool, tables: &impl Tables) -> bool {
    let contradicts = tables.neighbor(key).is_some_and(|receiver| receiver.mac != mac.0);
    if contradicts && !is_ours && tables.endpoint(key.endpoint(mac.0)).is_none() {
        note(key, mac, tables);
    }
    contradicts
}

#[inline(always)]
fn note(key: NeighborKey, mac: Mac, tables: &impl Tables) {
    let heard = tables.now();
    let claim = Claim {
        heard,
        mac: mac.0,
        reserved: 0,
    };
    tables.note_claim(key, claim);
}

//! Decides over a frame: from its headers and the tables to a [`Verdict`]. Frames that are not understood, or about which
//! the tables are not certain, are passed.
//!
//! The stages come in this order, and the first that decides ends the way: [`shed()`], [`shortcut()`] by the administrator's
//! word, [`learn`] by the router's, [`check_sender_mac`] (which never decides), and [`decide`], which is steering, limits
//! and delivery on ingress, and host access on egress. The programs run each stage in a BPF function of its own.

mod conflict;
mod deliver;
mod host_access;
mod ownership;
mod redirect;
mod shed;
mod steer;
mod storm;

pub use redirect::{RedirectBlocked, redirect_blocked_by};

use crate::{
    abi::{Cast, Direction, EndpointKey, Parent, Reason, Vid, Vlan},
    frame::Frame,
    layer2::{Headers, Protocol},
    lookup::{Lookup, Switches},
    parse::is_icmpv6,
    shortcut::{self, Packet, learn},
    verdict::Verdict,
};

/// Whether a frame that is neither shed nor takes the [`shortcut()`] is passed whatever is in the tables: the common case.
#[inline(always)]
pub fn is_plain(
    frame: &impl Frame,
    headers: &Headers,
    direction: Direction,
    switches: &impl Switches,
) -> bool {
    match direction {
        // Each constant is a branch of its own, which the verifier removes. It leaves the load, so every frame costs a few
        // of those, and there are as few as possible.
        Direction::Rx => {
            let is_read = switches.learns() || switches.delivers();
            // Egress reflects frames to the trunk itself, where they come in again.
            let may_be_hairpin = switches.gives_host_access() && headers.vlan == Vlan::UNTAGGED;
            let may_claim = switches.takes_shortcuts() && headers.protocol == Protocol::ARP;
            headers.cast == Cast::Unicast
                && !is_read
                && !may_be_hairpin
                && !may_claim
                && !checks_sender_mac(frame, headers, direction, switches)
        }
        Direction::Tx => !decides(direction, switches) && !switches.learns(),
    }
}

/// Decides over a frame: all stages, one after the other.
#[inline(always)]
pub fn classify(
    frame: &impl Frame,
    headers: &Headers,
    direction: Direction,
    tables: &impl Lookup,
) -> Verdict {
    if let Some(reason) = shed(frame, headers, direction, tables) {
        return Verdict::Drop(reason);
    }
    let routed = shortcut(frame, headers, direction, tables);
    if routed != Verdict::Pass {
        return routed;
    }
    let learnt = match learnable(frame, headers, direction) {
        Some(packet) if tables.learns() => learn(&packet, direction, tables),
        _ => Verdict::Pass,
    };
    if learnt != Verdict::Pass {
        return learnt;
    }
    check_sender_mac(frame, headers, direction, tables);
    decide(frame, headers, direction, tables)
}

/// The stage `--shed`: why no endpoint receives a frame that comes in, if that is certain.
#[inline(always)]
pub fn shed(
    frame: &impl Frame,
    headers: &Headers,
    direction: Direction,
    tables: &impl Lookup,
) -> Option<Reason> {
    if direction == Direction::Tx || !tables.sheds_vlans() {
        return None;
    }
    shed::shed(frame, headers, headers.vid(frame.len())?, tables)
}

/// The stage `--shortcut allow`: the shortcut of a packet that leaves and is for a router.
#[inline(always)]
pub fn shortcut(
    frame: &impl Frame,
    headers: &Headers,
    direction: Direction,
    tables: &impl Lookup,
) -> Verdict {
    let may = direction == Direction::Tx && tables.takes_shortcuts();
    match headers.vid(frame.len()) {
        Some(vid) if may && headers.has_hosts_tag() => {
            // The program on the VLAN's device has decided already.
            match tables.parent(vid).has(Parent::PROGRAM) {
                true => Verdict::Pass,
                false => shortcut_of(frame, headers, vid, tables),
            }
        }
        _ => Verdict::Pass,
    }
}

/// The shortcut of a packet that leaves by the device of a VLAN.
#[inline(always)]
pub fn shortcut_of(
    frame: &impl Frame,
    headers: &Headers,
    vid: Vid,
    tables: &impl Lookup,
) -> Verdict {
    match headers.cast {
        Cast::Unicast => shortcut::shortcut(frame, headers, vid, tables),
        _ => Verdict::Pass,
    }
}

/// The stage `--shortcut learned`: the packet to [`learn`] from.
#[inline(always)]
pub fn learnable(frame: &impl Frame, headers: &Headers, direction: Direction) -> Option<Packet> {
    let is_ip = matches!(headers.protocol, Protocol::IPV4 | Protocol::IPV6);
    let may = direction == Direction::Rx || headers.has_hosts_tag();
    if headers.cast != Cast::Unicast || !is_ip || !may {
        return None;
    }
    Packet::read(frame, headers, headers.vid(frame.len())?)
}

/// The stage that detects a container's MAC on the wire. It decides nothing.
#[inline(always)]
pub fn check_sender_mac(
    frame: &impl Frame,
    headers: &Headers,
    direction: Direction,
    tables: &impl Lookup,
) {
    match headers.vid(frame.len()) {
        Some(vid) if checks_sender_mac(frame, headers, direction, tables) => {
            conflict::check_sender_mac(frame, headers, vid, tables);
        }
        _ => {}
    }
}

/// Whether that stage looks at a frame: at ARP and at neighbour discovery that come in, with host access.
#[inline(always)]
pub fn checks_sender_mac(
    frame: &impl Frame,
    headers: &Headers,
    direction: Direction,
    switches: &impl Switches,
) -> bool {
    let may = direction == Direction::Rx && switches.gives_host_access();
    may && headers.cast == Cast::Unicast
        && (headers.protocol == Protocol::ARP || is_icmpv6(frame, headers))
}

/// Whether the stage [`decide`] looks at a frame: at what leaves, only with host access, or to see new senders where
/// frames are shed.
#[inline(always)]
pub fn decides(direction: Direction, switches: &impl Switches) -> bool {
    direction == Direction::Rx || switches.gives_host_access() || switches.sheds_vlans()
}

/// The last stage.
#[inline(always)]
pub fn decide(
    frame: &impl Frame,
    headers: &Headers,
    direction: Direction,
    tables: &impl Lookup,
) -> Verdict {
    match (headers.vid(frame.len()), direction) {
        (None, _) => Verdict::Pass,
        (Some(vid), Direction::Rx) => ingress(frame, headers, vid, tables),
        (Some(vid), Direction::Tx) => egress(frame, headers, vid, tables),
    }
}

/// What comes in: a group frame is steered or limited, and unicast is delivered.
#[inline(always)]
fn ingress(frame: &impl Frame, headers: &Headers, vid: Vid, tables: &impl Lookup) -> Verdict {
    let may_be_hairpin = tables.gives_host_access() && vid == Vid::UNTAGGED;
    if may_be_hairpin && host_access::is_hairpin(frame, tables) {
        return Verdict::Hairpin;
    }
    let is_unicast = headers.cast == Cast::Unicast;
    let is_limited = tables.storm_limit() != 0 || tables.group_limit() != 0;
    // Unicast ARP may claim an address that another endpoint has, which matters to whatever bypasses the wire.
    let is_read = match is_unicast {
        true => tables.bypasses_the_wire() && headers.protocol == Protocol::ARP,
        false => tables.steers() || is_limited || tables.bypasses_the_wire(),
    };
    if is_read && let Some(source) = frame.source() {
        let message = frame.message(headers, vid);
        // A switch has sent back an endpoint's own frame. Macvlan goes by its sender, so everyone has to hear it.
        let is_ours = tables.endpoint(EndpointKey::new(vid, source)).is_some();
        let claim = message.says();
        let conflicts =
            claim.is_some_and(|claim| conflict::check_sender_address(claim, is_ours, tables));
        if !is_unicast {
            return steer::group(message, is_ours || conflicts, vid, tables);
        }
    }
    match is_unicast {
        true => deliver::deliver(frame, headers, vid, tables),
        false => Verdict::Pass,
    }
}

/// What leaves: new senders are noted where frames are shed, and host access is given.
#[inline(always)]
fn egress(frame: &impl Frame, headers: &Headers, vid: Vid, tables: &impl Lookup) -> Verdict {
    let (Some(destination), Some(source)) = (frame.destination(), frame.source()) else {
        return Verdict::Pass;
    };
    if tables.sheds_vlans() {
        shed::note_sender(source, vid, tables);
    }
    match tables.gives_host_access() && headers.has_hosts_tag() {
        true => host_access::reflect(frame, headers, vid, (destination, source), tables),
        false => Verdict::Pass,
    }
}

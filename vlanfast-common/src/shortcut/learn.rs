//! `--shortcut learned`: the shortcut by the router's word, as far as the maps are needed. [`flow`](super::flow) has the
//! rules.

use super::{
    flow::{Arrival, Step},
    packet::Packet,
};
use crate::{
    abi::{Direction, EndpointKey, FlowKey, Mac, Parent, Reason, Route, Settings, Vid},
    lookup::{Lookup, tables_trusted},
    verdict::Verdict,
};

/// Decides over a packet that would be passed.
#[inline(always)]
pub fn learn(packet: &Packet, direction: Direction, tables: &impl Lookup) -> Verdict {
    match direction {
        Direction::Rx => arrive(packet, tables),
        Direction::Tx => leave(packet, tables),
    }
}

/// A packet leaves. It is for a router, if no endpoint has its destination MAC.
#[inline(always)]
fn leave(packet: &Packet, tables: &impl Lookup) -> Verdict {
    let vid = Vid::new(packet.key.vid);
    let Some(to) = tables.route(packet.key.receiver()) else {
        return Verdict::Pass;
    };
    let sender = Route {
        mac: packet.source.0,
        vid: packet.key.vid,
    };
    // The sender has to have the source address, and the receiver to be on another VLAN.
    if to.vid == packet.key.vid || tables.route(packet.key.sender()) != Some(sender) {
        return Verdict::Pass;
    }
    let parent = tables.parent(Vid::new(to.vid));
    let leads_on = parent.ifindex != 0 && parent.has(Parent::UP);
    let fits = packet.length <= parent.mtu as u32 && packet.hops > 1;
    let destination = EndpointKey::new(vid, packet.destination);
    let is_for_an_endpoint = || tables.endpoint(destination).is_some();
    if !leads_on || !fits || is_for_an_endpoint() {
        return Verdict::Pass;
    }
    let key = &packet.key;
    if !tables_trusted(tables, Settings::ENDPOINTS) {
        // From here on the router has some of the flow's packets, and the order can no longer be told.
        tables.forget_flow(key);
        return Verdict::Pass;
    }
    let flow = match tables.flow(key) {
        Some(_) if packet.is_syn_fin_rst() => {
            tables.forget_flow(key);
            return Verdict::Pass;
        }
        None if packet.is_syn_fin_rst() => return Verdict::Pass,
        Some(flow) => Some(flow),
        None => tables.open_flow(key),
    };
    let Some(flow) = flow else {
        return Verdict::Pass;
    };
    let acknowledged = || tables.flow(&key.back(to.vid))?.acknowledged();
    let times = (tables.exact_now(), tables.refresh());
    let step = flow.leave(packet, to, acknowledged, times);
    if step != Step::Router
        && let Some(pair) = tables.pair(key.vlan_pair(to.vid))
    {
        pair.count(step, packet);
    }
    let (vid, mac) = (Vid::new(to.vid), Mac(to.mac));
    match step {
        Step::Router | Step::Candidate | Step::Probe => Verdict::Pass,
        Step::Failed => {
            tables.forget_flow(key);
            Verdict::Pass
        }
        Step::Shortcut => Verdict::Shortcut { vid, mac },
        Step::ShortcutAndProbe => Verdict::ShortcutAndProbe { vid, mac },
    }
}

/// A packet comes in. It is from a router, if its sender is a container of another VLAN.
#[inline(always)]
fn arrive(packet: &Packet, tables: &impl Lookup) -> Verdict {
    let Some(from) = tables.route(packet.key.sender()) else {
        return Verdict::Pass;
    };
    let receiver = Route {
        mac: packet.destination.0,
        vid: packet.key.vid,
    };
    let key = FlowKey {
        vid: from.vid,
        ..packet.key
    };
    let Some(flow) = tables
        .flow(&key)
        .filter(|_| tables_trusted(tables, Settings::ENDPOINTS))
    else {
        return Verdict::Pass;
    };
    match flow.arrive(packet, receiver, tables.exact_now()) {
        Arrival::Ordinary => Verdict::Pass,
        Arrival::Returned => Verdict::Drop(Reason::Returned),
        Arrival::Enables => {
            if let Some(pair) = tables.pair(key.vlan_pair(receiver.vid)) {
                pair.enable();
            }
            Verdict::Pass
        }
    }
}

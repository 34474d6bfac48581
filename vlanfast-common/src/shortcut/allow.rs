//! `--shortcut allow`: the shortcut by the administrator's word, which is the map `ROUTES`.

use crate::{
    abi::{EndpointKey, Mac, NeighborKey, Parent, Route, Settings, Vid},
    frame::Frame,
    layer2::Headers,
    lookup::{Lookup, tables_trusted},
    parse::{ends, longest},
    verdict::Verdict,
};

/// The shortcut of a packet that is for a router, and whose receiver is a container of another VLAN.
#[inline(always)]
pub fn shortcut(frame: &impl Frame, headers: &Headers, vid: Vid, tables: &impl Lookup) -> Verdict {
    let Some((sender, receiver)) = ends(frame, headers, vid) else {
        return Verdict::Pass;
    };
    match destination(frame, sender, receiver, tables) {
        Some((vid, parent, mac))
            if tables_trusted(tables, Settings::ENDPOINTS) && fits(frame, headers, parent.mtu) =>
        {
            Verdict::Shortcut { vid, mac }
        }
        _ => Verdict::Pass,
    }
}

/// Where the packets from one address to another go: the receiver's VLAN, the host's device for that, and the
/// receiver's MAC.
#[inline(always)]
pub fn destination(
    frame: &impl Frame,
    sender: NeighborKey,
    receiver: NeighborKey,
    tables: &impl Lookup,
) -> Option<(Vid, Parent, Mac)> {
    let vid = Vid::new(receiver.vid);
    let (router, source) = (frame.destination()?, frame.source()?);
    // A MAC that no endpoint has is a router's.
    if tables.endpoint(EndpointKey::new(vid, router)).is_some() {
        return None;
    }
    let route = tables.route(receiver)?;
    let to = Vid::new(route.vid);
    let parent = tables.parent(to);
    if parent.ifindex == 0 || !parent.has(Parent::UP) {
        return None;
    }
    // The way back has to be a shortcut as well, so that a firewall on the router sees both directions or none. It also
    // shows that the sender has the address.
    let back = NeighborKey {
        vid: route.vid,
        ..sender
    };
    let way_back = Route {
        mac: source.0,
        vid: receiver.vid,
    };
    (tables.route(back) == Some(way_back)).then_some((to, parent, Mac(route.mac)))
}

/// Whether every packet of a buffer fits the MTU of another device.
#[inline(always)]
pub fn fits(frame: &impl Frame, headers: &Headers, mtu: u16) -> bool {
    longest(frame, headers).is_some_and(|length| length <= mtu as usize)
}

//! The shortcut by the administrator's word.

use super::{Tables, tables_trusted};
use crate::{
    EndpointKey, Frame, Headers, Mac, NeighborKey, Parent, Route, Settings, Verdict, Vid, ends,
    fits,
};

/// Where a router would send a packet, if it is for one, and for a container of another VLAN.
#[inline(always)]
pub fn shortcut(frame: &impl Frame, headers: &Headers, vid: Vid, tables: &impl Tables) -> Verdict {
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

/// What all packets between two have in common.
#[inline(always)]
pub fn destination(
    frame: &impl Frame,
    sender: NeighborKey,
    receiver: NeighborKey,
    tables: &impl Tables,
) -> Option<(Vid, Parent, Mac)> {
    let vid = Vid::new(receiver.vid);
    let (router, source) = (frame.read(0).map(Mac)?, frame.read(6)?);
    // It is a router's, if nobody here has it.
    if tables.endpoint(EndpointKey::new(vid, router)).is_some() {
        return None;
    }
    let route = tables.route(receiver)?;
    let to = Vid::new(route.vid);
    let parent = tables.parent(to);
    if parent.ifindex == 0 || !parent.has(Parent::UP) {
        return None;
    }
    // Only if the answer comes back the same way, so that a router sees both or none; which also means that the
    // sender has the address.
    let back = NeighborKey {
        vid: route.vid,
        ..sender
    };
    let way_back = Route {
        mac: source,
        vid: receiver.vid,
    };
    (tables.route(back) == Some(way_back)).then_some((to, parent, Mac(route.mac)))
}

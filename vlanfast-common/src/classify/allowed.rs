//! The shortcut by the administrator's word.

use super::{Tables, are_true};
use crate::{
    EndpointKey, Frame, Headers, Mac, NeighborKey, Parent, Route, Settings, Verdict, Vid, ends,
    fits,
};

/// Where a router would send a packet, if it is for one, and for a container of another VLAN.
#[inline(always)]
pub fn shortcut(frame: &impl Frame, headers: &Headers, vid: Vid, tables: &impl Tables) -> Verdict {
    let (Some(destination), Some(source)) = (frame.read(0).map(Mac), frame.read(6).map(Mac)) else {
        return Verdict::Pass;
    };
    // A router's, if nobody here has the MAC.
    let key = EndpointKey::new(vid, destination);
    if tables.endpoint(key).is_some() {
        return Verdict::Pass;
    }
    let Some((sender, taker)) = ends(frame, headers, vid) else {
        return Verdict::Pass;
    };
    let Some(route) = tables.route(taker) else {
        return Verdict::Pass;
    };
    let to = Vid::from_tci(route.vid);
    let parent = tables.parent(to);
    let leads_on = parent.ifindex != 0 && parent.has(Parent::UP);
    if !leads_on || !are_true(tables, Settings::ENDPOINTS) || !fits(frame, headers, parent.mtu) {
        return Verdict::Pass;
    }
    // Only if the answer comes back the same way, so that a router sees both or none; which also means that the
    // sender has the address.
    let back = NeighborKey {
        vid: route.vid,
        ..sender
    };
    let way_back = Route {
        mac: source.0,
        vid: vid.get(),
    };
    if tables.route(back) != Some(way_back) {
        return Verdict::Pass;
    }
    Verdict::Shortcut {
        vid: to,
        mac: Mac(route.mac),
    }
}

//! `--deliver redirect`: unicast for a macvlan or macvtap in the trunk's own namespace goes to that device at once.

use super::redirect::redirect_blocked_by;
use crate::{
    abi::{Endpoint, EndpointKey, Settings, Vid},
    frame::Frame,
    layer2::Headers,
    lookup::{Lookup, tables_trusted},
    verdict::Verdict,
};

/// Redirects a unicast frame past the VLAN's device, if the kernel would hand it to the same endpoint.
#[inline(always)]
pub fn deliver(frame: &impl Frame, headers: &Headers, vid: Vid, tables: &impl Lookup) -> Verdict {
    // The tables do not have the endpoints of stacked VLANs.
    if !tables.delivers() || headers.protocol.is_stacked() {
        return Verdict::Pass;
    }
    let Some(destination) = frame.destination() else {
        return Verdict::Pass;
    };
    let Some(endpoint) = tables.endpoint(EndpointKey::new(vid, destination)) else {
        return Verdict::Pass;
    };
    if endpoint.has(Endpoint::HOST) || redirect_blocked_by(tables.parent(vid), endpoint).is_some() {
        return Verdict::Pass;
    }
    // While the tables follow a change, the kernel's own path finds the MAC's new device; a redirect to a device that has
    // gone would drop the frame.
    match tables_trusted(tables, Settings::ENDPOINTS | Settings::CHANGING) {
        true => Verdict::Deliver {
            ifindex: endpoint.ifindex,
        },
        false => Verdict::Pass,
    }
}

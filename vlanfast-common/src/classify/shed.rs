//! `--shed`: frames that no endpoint of this host receives are dropped.

use crate::{
    abi::{Cast, EndpointKey, Mac, Parent, Reason, Settings, Vid},
    frame::Frame,
    layer2::Headers,
    lookup::{Lookup, tables_trusted},
};

/// Why no endpoint receives a frame, if that is certain.
#[inline(always)]
pub fn shed(
    frame: &impl Frame,
    headers: &Headers,
    vid: Vid,
    tables: &impl Lookup,
) -> Option<Reason> {
    // A frame that looks untagged may have had a tag that the hook was not shown.
    if vid == Vid::UNTAGGED {
        return None;
    }
    let parent = tables.parent(vid);
    let (kind, reason) = match parent.is_absent() {
        true => (Settings::VLANS, Reason::ShedVlan),
        false => (Settings::ENDPOINTS, Reason::ShedMac),
    };
    if reason == Reason::ShedMac {
        let is_looked_up = tables.sheds_macs() && headers.cast == Cast::Unicast;
        // The tables do not have the endpoints of stacked VLANs.
        if !is_looked_up || parent.has(Parent::UNSHED) || headers.protocol.is_stacked() {
            return None;
        }
        let key = EndpointKey::new(vid, frame.destination()?);
        if parent.ifindex == 0 || tables.endpoint(key).is_some() {
            return None;
        }
    }
    let has_unknown_sender = || {
        let buckets = tables.buckets(vid);
        buckets.is_none_or(|buckets| buckets.has_unknown_sender(|| tables.now()))
    };
    let is_certain = tables_trusted(tables, kind | Settings::CHANGING) && !has_unknown_sender();
    is_certain.then_some(reason)
}

/// Looks at who sends a frame that leaves. A sender that the tables lack is an endpoint that they will have in a moment:
/// until then its VLAN is not shed.
#[inline(always)]
pub fn note_sender(source: Mac, vid: Vid, tables: &impl Lookup) {
    // Untagged frames are not shed.
    if vid == Vid::UNTAGGED || source.is_group() || source == Mac::default() {
        return;
    }
    let is_known = match tables.parent(vid).is_absent() {
        true => false,
        false => !tables.sheds_macs() || tables.endpoint(EndpointKey::new(vid, source)).is_some(),
    };
    if !is_known && let Some(buckets) = tables.buckets(vid) {
        buckets.note_unknown_sender(tables.now());
    }
}

//! Which endpoint has an address or a MAC for certain.

use crate::{
    abi::{Endpoint, EndpointKey, Mac, Neighbor, NeighborKey, Vid},
    lookup::Lookup,
};

/// Whether the sender may claim an address. A container has to have it for certain, and to claim it for itself. The host
/// may claim what no container has, or what is known of another device, whose addresses it answers for too.
#[inline(always)]
pub fn may_claim(
    (key, mac): (NeighborKey, Mac),
    sender: Endpoint,
    source: Mac,
    tables: &impl Lookup,
) -> bool {
    let Some(neighbor) = tables.neighbor(key) else {
        return sender.is_of_the_host();
    };
    if !sender.is_of_the_host() {
        return mac == source && neighbor.mac == source.0 && is_sole_owner(key, neighbor, tables);
    }
    let owner = tables.endpoint(key.endpoint(neighbor.mac));
    owner.is_some_and(|owner| owner.is_of_the_host()) || tables.neighbor(key.anywhere()).is_some()
}

/// Whether the endpoint in `NEIGHBORS` has an address for certain, so that the wire need not be asked first.
#[inline(always)]
pub fn is_sole_owner(key: NeighborKey, neighbor: Neighbor, tables: &impl Lookup) -> bool {
    !neighbor.is_doubted(Neighbor::UNCERTAIN)
        && (neighbor.has(Neighbor::ASSIGNED) || !is_claimed(key, tables))
}

/// Whether a host on the wire claims an address. A claimant that turned out to be an endpoint does not count: a device's
/// new MAC is on the wire before the tables have it.
#[inline(always)]
fn is_claimed(key: NeighborKey, tables: &impl Lookup) -> bool {
    let Some(claim) = tables.claim(key) else {
        return false;
    };
    tables.endpoint(key.endpoint(claim.mac)).is_none()
}

/// The endpoint with a MAC on a VLAN, unless two have it.
#[inline(always)]
pub fn sole_endpoint(mac: Mac, vid: Vid, tables: &impl Lookup) -> Option<Endpoint> {
    let endpoint = tables.endpoint(EndpointKey::new(vid, mac))?;
    (!endpoint.has(Endpoint::CONFLICT)).then_some(endpoint)
}

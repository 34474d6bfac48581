//! Claims: evidence from the programs and the host that a station on the wire has an endpoint's address or MAC. This
//! module is pure; times are of CLOCK_MONOTONIC.

use std::{collections::BTreeMap, fmt, time::Duration};

use vlanfast_common::{Claim, Endpoint, Mac, NeighborKey};

use super::tables::DesiredTables;

/// How long a claim counts at most, if the claimant cannot be probed.
pub const VALIDITY: Duration = Duration::from_secs(150);

/// An endpoint's address or MAC that a station on the wire has as well (RFC 5227: address conflict).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Conflict {
    pub key: NeighborKey,
    /// The MAC of the endpoint.
    pub receiver: [u8; 6],
    /// The MAC of the claimant.
    pub by: [u8; 6],
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, receiver, by } = self;
        let (address, vid, receiver, by) = (key.address(), key.vid, Mac(*receiver), Mac(*by));
        if key.receiver().is_some() {
            return write!(
                f,
                "{receiver} on VLAN {vid}: a station on the wire and a container on this host have this MAC"
            );
        }
        write!(
            f,
            "{address} on VLAN {vid}: {by} on the wire has it, and {receiver} here, too"
        )
    }
}

/// Finds the conflicts between endpoints and claimants on the wire.
pub fn conflicts<'a>(
    tables: &'a DesiredTables,
    claims: &'a BTreeMap<NeighborKey, Claim>,
) -> impl Iterator<Item = Conflict> + 'a {
    claims.iter().filter_map(|(&key, claim)| {
        let by = claim.mac;
        let receiver = match key.receiver() {
            Some(receiver) => tables.endpoints.get_key_value(&receiver)?.0.mac,
            None => tables.neighbors.get(&key)?.mac,
        };
        (key.receiver().is_some() || receiver != by).then_some(Conflict { key, receiver, by })
    })
}

/// Finds claims that can be dropped, because they are old, no endpoint has the address, or the claimant is an endpoint
/// of the VLAN itself.
pub fn idle(
    claims: &BTreeMap<NeighborKey, Claim>,
    tables: &DesiredTables,
    now: Duration,
) -> Vec<NeighborKey> {
    let is_idle = |(key, claim): &(&NeighborKey, &Claim)| {
        if key.receiver().is_some() {
            return is_idle_for_mac(key, claim, tables, now);
        }
        Duration::from_nanos(claim.heard) + VALIDITY < now
            || !tables.neighbors.contains_key(key)
            || tables.endpoints.contains_key(&key.endpoint(claim.mac))
    };
    let idle = claims.iter().filter(is_idle);
    idle.map(|(key, _)| *key).collect()
}

/// Whether a claim to an endpoint's MAC can be dropped.
fn is_idle_for_mac(
    key: &NeighborKey,
    claim: &Claim,
    tables: &DesiredTables,
    now: Duration,
) -> bool {
    let endpoint = key
        .receiver()
        .and_then(|receiver| tables.endpoints.get(&receiver));
    Duration::from_nanos(claim.heard) + VALIDITY < now
        || !endpoint.is_some_and(Endpoint::uses_its_mac)
}

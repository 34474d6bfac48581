//! Detects stations on the wire that have a container's MAC. Frames from the host for such a MAC must not be delivered
//! to the container, and the container's addresses are uncertain. This module is pure; times are of CLOCK_MONOTONIC.

use std::{collections::BTreeMap, time::Duration};

use vlanfast_common::{Claim, Endpoint, EndpointKey, Neighbor, NeighborKey};

use crate::state::{address_owners::dispute, claims::VALIDITY, tables::DesiredTables};

/// How much later than an endpoint lost an address a neighbour entry must have been confirmed, so that it cannot mean
/// the endpoint. It is also how long an endpoint that takes over a MAC has to get its addresses.
const SLACK: Duration = Duration::from_secs(2);

/// An entry of the host's neighbour tables.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub key: NeighborKey,
    pub mac: [u8; 6],
    pub confirmed: Duration,
}

/// Detects conflicts by the host's neighbour tables.
#[derive(Debug, Default)]
pub struct MacConflicts {
    /// When an entry last led to an endpoint that certainly had the address. The entry stays in the table for long
    /// after that.
    ours: BTreeMap<(NeighborKey, [u8; 6]), Duration>,
    /// Endpoints that share their MAC with others and had no address until then, such as the backup of a virtual
    /// router, and when they took over. Their addresses come one by one. An entry is kept for as long as a claim would
    /// be, so that nobody gains more time by removing its addresses again.
    successors: BTreeMap<EndpointKey, Duration>,
}

impl MacConflicts {
    /// Finds the endpoints whose MAC a station on the wire has as well: the host has a neighbour entry with this MAC
    /// and an address that the endpoint does not have. However old the entry is, it counts as long as the host keeps
    /// it, because the host sends there. The tables of `before` tell who certainly had which address.
    pub fn detect(
        &mut self,
        entries: impl Iterator<Item = Entry>,
        before: &DesiredTables,
        tables: &DesiredTables,
        now: Duration,
    ) -> Vec<(NeighborKey, Claim)> {
        const DOUBTS: u16 = Neighbor::CONFLICT | Neighbor::UNSURE | Neighbor::FOREIGN;
        self.successors.retain(|_, since| now < *since + VALIDITY);
        let mut ours = BTreeMap::new();
        let mut claims = vec![];
        for Entry {
            key,
            mac,
            confirmed,
        } in entries
        {
            let had = before.neighbors.get(&key);
            let was_ours = had.is_some_and(|had| had.mac == mac && !had.is_doubted(DOUBTS));
            let known = self.ours.get(&(key, mac)).copied();
            let last = if was_ours { Some(now) } else { known };
            ours.extend(last.map(|last| ((key, mac), last)));
            let has = tables.neighbors.get(&key);
            let is_ours = has.is_some_and(|has| has.mac == mac);
            let is_remembered = last.is_some_and(|last| confirmed <= last + SLACK);
            let receiver = EndpointKey { vid: key.vid, mac };
            let endpoint = tables.endpoints.get(&receiver);
            let was_standby = before.endpoints.get(&receiver);
            let was_standby = was_standby.is_some_and(|it| it.has(Endpoint::NO_ADDRESS));
            if was_standby && endpoint.is_some_and(Endpoint::uses_its_mac) {
                self.successors.entry(receiver).or_insert(now);
            }
            let since = self.successors.get(&receiver);
            let takes_over = since.is_some_and(|since| now < *since + SLACK);
            // The addresses of a macvtap's guest are not known.
            let is_in_use =
                endpoint.is_some_and(|it| it.uses_its_mac() && !it.has(Endpoint::MACVTAP));
            if is_in_use && !is_ours && !is_remembered && !takes_over {
                let heard = now.as_nanos() as u64;
                let claim = Claim {
                    heard,
                    mac,
                    reserved: 0,
                };
                claims.push((NeighborKey::of_mac(receiver), claim));
            }
        }
        self.ours = ours;
        claims
    }
}

/// Marks the endpoints whose MAC a station on the wire has as well, and their addresses.
pub fn mark(tables: &mut DesiredTables, claims: &BTreeMap<NeighborKey, Claim>) {
    for receiver in claims.keys().filter_map(NeighborKey::receiver) {
        if let Some(endpoint) = tables.endpoints.get_mut(&receiver) {
            endpoint.flags |= Endpoint::CONFLICT;
        }
    }
    dispute(tables);
}

#[cfg(test)]
mod tests {
    use vlanfast_common::{Mac, Vid};

    use super::*;

    #[test]
    fn a_standby_that_takes_over_has_a_moment_to_get_its_addresses_but_no_second_one_soon() {
        let vid = Vid::new(10);
        let mac = [0, 0, 0x5e, 0, 1, 7];
        let receiver = EndpointKey::new(vid, Mac(mac));
        let with = |flags| {
            let endpoint = Endpoint {
                nsid: 3,
                flags,
                ..Endpoint::default()
            };
            let mut tables = DesiredTables::default();
            tables.endpoints.insert(receiver, endpoint);
            tables
        };
        let (idle, active) = (with(Endpoint::NO_ADDRESS), with(0));
        let mut conflicts = MacConflicts::default();
        let mut claims = |before: &DesiredTables, now: &DesiredTables, second| {
            let entry = Entry {
                key: NeighborKey::new(vid, [10, 0, 10, 1].into()),
                mac,
                confirmed: Duration::from_secs(second),
            };
            let entries = [entry].into_iter();
            let heard = conflicts.detect(entries, before, now, Duration::from_secs(second));
            heard.len()
        };
        assert_eq!(claims(&idle, &idle, 100), 0);
        assert_eq!(claims(&idle, &active, 101), 0);
        assert_eq!(claims(&active, &active, 102), 0);
        assert_eq!(claims(&active, &active, 104), 1);
        // The endpoint removes its addresses and adds them again.
        assert_eq!(claims(&active, &idle, 110), 0);
        assert_eq!(claims(&idle, &active, 111), 1);
        // A later failover.
        assert_eq!(claims(&idle, &active, 300), 0);
    }
}

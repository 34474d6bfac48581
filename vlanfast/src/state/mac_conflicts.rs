//! Detects hosts on the wire that have a container's MAC. Frames from the host for such a MAC must not be delivered to the
//! container, and the container's addresses are uncertain. This module is pure; times are of CLOCK_MONOTONIC.

use std::{collections::BTreeMap, time::Duration};

use vlanfast_common::{Claim, Endpoint, EndpointKey, Neighbor, NeighborKey};

use crate::state::{address_owners::dispute, claims::VALIDITY, tables::DesiredTables};

/// How much later than a receiver lost an address somebody has to have confirmed it, so that it was not the receiver.
const SLACK: Duration = Duration::from_secs(2);

/// An entry of the host's neighbour tables.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub key: NeighborKey,
    pub mac: [u8; 6],
    pub confirmed: Duration,
}

/// What the host's neighbour tables say of the MACs of receivers.
#[derive(Debug, Default)]
pub struct MacConflicts {
    /// When an entry last led to a receiver that had the address for sure: it stays for long after that.
    ours: BTreeMap<(NeighborKey, [u8; 6]), Duration>,
    /// Receivers with the MAC of another that had no address until then, as the backup of a virtual router has none: since
    /// when they take over. Their addresses come one by one. Kept as long as a claim would be, so that nobody gains more
    /// of that time by giving his addresses up again.
    heirs: BTreeMap<EndpointKey, Duration>,
}

impl MacConflicts {
    /// The MACs of receivers that somebody on the wire has as well: the host knows them under an address that the receiver
    /// does not have. That is so for as long as it knows them, however long ago it heard of them: it sends there. The
    /// tables of `before` say who had which address for sure.
    pub fn heard(
        &mut self,
        entries: impl Iterator<Item = Entry>,
        before: &DesiredTables,
        tables: &DesiredTables,
        now: Duration,
    ) -> Vec<(NeighborKey, Claim)> {
        const DOUBTS: u16 = Neighbor::CONFLICT | Neighbor::UNSURE | Neighbor::FOREIGN;
        self.heirs.retain(|_, since| now < *since + VALIDITY);
        let mut ours = BTreeMap::new();
        let mut claims = vec![];
        for Entry {
            key,
            mac,
            confirmed,
        } in entries
        {
            let had = before.neighbors.get(&key);
            let was_his = had.is_some_and(|had| had.mac == mac && !had.is_doubted(DOUBTS));
            let known = self.ours.get(&(key, mac)).copied();
            let last = if was_his { Some(now) } else { known };
            ours.extend(last.map(|last| ((key, mac), last)));
            let has = tables.neighbors.get(&key);
            let is_his = has.is_some_and(|has| has.mac == mac);
            let is_memory = last.is_some_and(|last| confirmed <= last + SLACK);
            let receiver = EndpointKey { vid: key.vid, mac };
            let endpoint = tables.endpoints.get(&receiver);
            let stood_by = before.endpoints.get(&receiver);
            let stood_by = stood_by.is_some_and(|it| it.has(Endpoint::NO_ADDRESS));
            if stood_by && endpoint.is_some_and(Endpoint::uses_its_mac) {
                self.heirs.entry(receiver).or_insert(now);
            }
            let since = self.heirs.get(&receiver);
            let takes_over = since.is_some_and(|since| now < *since + SLACK);
            // The addresses of guests are not known.
            let is_in_use =
                endpoint.is_some_and(|it| it.uses_its_mac() && !it.has(Endpoint::MACVTAP));
            if is_in_use && !is_his && !is_memory && !takes_over {
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

/// Marks the receivers whose MAC somebody on the wire has as well, and their addresses.
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
    fn who_takes_over_has_a_moment_for_his_addresses_and_no_other_soon() {
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
        let mut doubles = MacConflicts::default();
        let mut claims = |before: &DesiredTables, now: &DesiredTables, second| {
            let entry = Entry {
                key: NeighborKey::new(vid, [10, 0, 10, 1].into()),
                mac,
                confirmed: Duration::from_secs(second),
            };
            let entries = [entry].into_iter();
            let heard = doubles.heard(entries, before, now, Duration::from_secs(second));
            heard.len()
        };
        assert_eq!(claims(&idle, &idle, 100), 0);
        assert_eq!(claims(&idle, &active, 101), 0);
        assert_eq!(claims(&active, &active, 102), 0);
        assert_eq!(claims(&active, &active, 104), 1);
        // He gives his addresses up, and takes them again.
        assert_eq!(claims(&active, &idle, 110), 0);
        assert_eq!(claims(&idle, &active, 111), 1);
        // A failover of another day.
        assert_eq!(claims(&idle, &active, 300), 0);
    }
}

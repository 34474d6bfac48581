//! Quotas: which owner an entry of the tables belongs to, and how many entries each owner may have, so that none can
//! crowd out another.

use std::collections::{BTreeMap, BTreeSet};

use vlanfast_common::{Endpoint, EndpointKey};

/// The number of entries that one owner may have, however much room is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quotas {
    /// The quota for the addresses of an endpoint.
    pub addresses: u32,
    /// The quota for the endpoints of a namespace other than the trunk's.
    pub endpoints: u32,
}

/// The owner of entries. Another namespace is one owner, because all its devices belong to one container. In the
/// trunk's own namespace, each endpoint is an owner of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner {
    pub nsid: i32,
    one: Option<EndpointKey>,
}

impl Owner {
    /// Returns the owner of an endpoint, and of all entries that lead to it.
    pub fn of(key: EndpointKey, endpoint: Option<&Endpoint>) -> Self {
        let nsid = endpoint.map_or(Endpoint::OWN_NAMESPACE, |endpoint| endpoint.nsid);
        match nsid {
            Endpoint::OWN_NAMESPACE => Self {
                nsid,
                one: Some(key),
            },
            _ => Self::namespace(nsid),
        }
    }

    /// Returns the owner of everything in another namespace.
    pub const fn namespace(nsid: i32) -> Self {
        Self { nsid, one: None }
    }

    /// Whether the owner is in the trunk's own namespace, where only root can create devices.
    pub const fn is_ours(&self) -> bool {
        self.nsid == Endpoint::OWN_NAMESPACE
    }
}

/// An entry that a map should have.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<K> {
    pub key: K,
    pub owner: Owner,
    /// What the quota counts for: a VLAN, and an endpoint on it.
    pub unit: (u16, EndpointKey),
    pub quota: u32,
}

/// The entries that a map will not have.
#[derive(Debug)]
pub struct LeftOut<K> {
    /// The entries that exceed their owner's quota.
    pub over: BTreeMap<K, Owner>,
    /// The entries for which the map has no room.
    pub short: BTreeSet<K>,
}

impl<K> Default for LeftOut<K> {
    fn default() -> Self {
        Self {
            over: BTreeMap::new(),
            short: BTreeSet::new(),
        }
    }
}

impl<K: Ord> LeftOut<K> {
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.over.keys().chain(&self.short)
    }

    pub fn contains(&self, key: &K) -> bool {
        self.over.contains_key(key) || self.short.contains(key)
    }
}

/// The entries of each unit, with its quota.
type Units<K> = BTreeMap<(Owner, (u16, EndpointKey)), (u32, Vec<K>)>;

/// Selects the entries that a map will not have. Within a unit, installed entries take precedence, and then lower keys.
/// If the map is full, every owner gets its first entry before any owner gets a second.
pub fn share<K: Ord + Copy>(
    wanted: impl IntoIterator<Item = Wanted<K>>,
    is_installed: impl Fn(&K) -> bool,
    capacity: u32,
) -> LeftOut<K> {
    let mut units = Units::<K>::new();
    for entry in wanted {
        let unit = units.entry((entry.owner, entry.unit)).or_default();
        unit.0 = entry.quota;
        unit.1.push(entry.key);
    }
    let precedence = |key: &K| (!is_installed(key), *key);
    let mut over = BTreeMap::new();
    for ((owner, _), (quota, keys)) in &mut units {
        let quota = *quota as usize;
        if keys.len() > quota {
            keys.sort_by_cached_key(precedence);
            over.extend(keys.drain(quota..).map(|key| (key, *owner)));
        }
    }
    let (mut admitted, mut short) = (BTreeSet::new(), BTreeSet::new());
    let kept: usize = units.values().map(|(_, keys)| keys.len()).sum();
    if over.is_empty() && kept <= capacity as usize {
        return LeftOut { over, short };
    }
    for key in in_turns(units, precedence) {
        if admitted.contains(&key) {
            continue;
        }
        match admitted.len() < capacity as usize {
            true => admitted.insert(key),
            false => short.insert(key),
        };
    }
    // Two owners may want the same entry, for example the address of a bridge. It is in the map if one of them has room
    // for it.
    over.retain(|key, _| !admitted.contains(key) && !short.contains(key));
    LeftOut { over, short }
}

/// Orders the entries so that every owner's first entry precedes any owner's second. The units of one owner alternate
/// in the same way.
fn in_turns<K: Copy, P: Ord>(
    units: Units<K>,
    precedence: impl Fn(&K) -> P,
) -> impl Iterator<Item = K> {
    let mut owners = BTreeMap::<Owner, Vec<(usize, K)>>::new();
    for ((owner, _), (_, mut keys)) in units {
        keys.sort_by_cached_key(&precedence);
        let entries = owners.entry(owner).or_default();
        entries.extend(keys.into_iter().enumerate());
    }
    let ranks = owners.into_values().flat_map(|mut entries| {
        entries.sort_by_key(|(turn, _)| *turn);
        let keys = entries.into_iter().map(|(_, key)| key);
        keys.enumerate()
    });
    let mut ranked: Vec<_> = ranks.collect();
    ranked.sort_by_cached_key(|(rank, key)| (*rank, precedence(key)));
    ranked.into_iter().map(|(_, key)| key)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIT: (u16, EndpointKey) = (
        0,
        EndpointKey {
            vid: 0,
            mac: [0; 6],
        },
    );

    fn wanted(nsid: i32, keys: impl IntoIterator<Item = u32>, quota: u32) -> Vec<Wanted<u32>> {
        let wanted = |key| Wanted {
            key,
            owner: Owner::namespace(nsid),
            unit: UNIT,
            quota,
        };
        keys.into_iter().map(wanted).collect()
    }

    #[test]
    fn an_owner_over_its_quota_keeps_installed_entries_and_then_the_lowest() {
        let all = [wanted(1, 1..6, 3), wanted(2, 6..8, 3)].concat();
        let left_out = share(all, |key| *key == 4, 100);
        let over: Vec<_> = left_out.over.into_iter().collect();
        let one = Owner::namespace(1);
        assert_eq!(over, [(3, one), (5, one)]);
        assert!(left_out.short.is_empty());
    }

    #[test]
    fn in_a_full_map_every_owner_has_a_first_entry_before_any_has_a_second() {
        let all = || {
            let others = (2..6).map(|nsid| wanted(nsid, [100 * nsid as u32], 99));
            let all: Vec<_> = others.chain([wanted(1, 0..50, 99)]).collect();
            all.concat()
        };
        // Owner 1 had filled the map before the others came.
        let left_out = share(all(), |key| *key < 8, 8);
        assert_eq!(left_out.short, (4..50).collect());
        // The result is stable.
        let again = share(all(), |key| !left_out.short.contains(key), 8);
        assert_eq!(again.short, left_out.short);
    }

    #[test]
    fn an_entry_of_two_owners_is_left_out_if_neither_has_room() {
        let shared = |quota| [wanted(1, 1..4, quota), wanted(2, [3], 1)].concat();
        assert!(share(shared(2), |_| false, 100).over.is_empty());
        let left_out = share(shared(1), |_| false, 100);
        assert_eq!(left_out.over.into_keys().collect::<Vec<_>>(), [2]);
        assert_eq!(share(shared(3), |_| false, 3).short, BTreeSet::new());
    }

    #[test]
    fn in_our_own_namespace_each_endpoint_is_an_owner() {
        let own = Endpoint {
            nsid: Endpoint::OWN_NAMESPACE,
            ..Endpoint::default()
        };
        let other = Endpoint { nsid: 3, ..own };
        let key = |last| EndpointKey {
            vid: 0,
            mac: [2, 0, 0, 0, 0, last],
        };
        assert_ne!(Owner::of(key(1), Some(&own)), Owner::of(key(2), Some(&own)));
        assert_eq!(
            Owner::of(key(1), Some(&other)),
            Owner::of(key(2), Some(&other))
        );
        assert!(Owner::of(key(1), None).is_ours());
    }
}

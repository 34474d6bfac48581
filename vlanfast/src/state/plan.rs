//! Plans the changes from the installed to the desired contents of the maps, and which entries are left out for lack of
//! room.

use std::collections::{BTreeMap, BTreeSet};

use vlanfast_common::{Endpoint, EndpointKey, Neighbor, NeighborKey, Parent, Route, Vid};

use crate::state::{
    quotas::{LeftOut, Owner, Quotas, Wanted, share},
    tables::{Desired, DesiredTables},
};

/// The capacities of the hash maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    pub endpoints: u32,
    pub neighbors: u32,
    pub routes: u32,
}

/// The changes to all maps. In each map, entries are removed before others are added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub vlans: Changes<Vid, Parent>,
    pub endpoints: Changes<EndpointKey, Endpoint>,
    pub neighbors: Changes<NeighborKey, Neighbor>,
    pub routes: Changes<NeighborKey, Route>,
    /// The namespaces that exceed their quota, by their number in `ENDPOINTS`, and how much of each is left out.
    pub over: BTreeMap<i32, Over>,
}

/// The numbers of entries that are left out because a namespace exceeds its quota.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Over {
    pub endpoints: u32,
    pub addresses: u32,
}

/// The changes to one map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes<K, V> {
    pub remove: Vec<K>,
    /// Entries that are new or have another value.
    pub put: Vec<(K, V)>,
    /// The number of entries for which the map has no room.
    pub left_out: u32,
}

impl<K, V> Default for Changes<K, V> {
    fn default() -> Self {
        Self {
            remove: vec![],
            put: vec![],
            left_out: 0,
        }
    }
}

impl Plan {
    /// The number of entries that are written or removed.
    pub fn len(&self) -> usize {
        self.vlans.len() + self.endpoints.len() + self.neighbors.len() + self.routes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether entries are removed from the hash maps.
    pub fn removes(&self) -> bool {
        !(self.endpoints.remove.is_empty()
            && self.neighbors.remove.is_empty()
            && self.routes.remove.is_empty())
    }

    /// Whether entries are written to the hash maps.
    pub fn puts(&self) -> bool {
        !(self.endpoints.put.is_empty()
            && self.neighbors.put.is_empty()
            && self.routes.put.is_empty())
    }

    /// Whether a VLAN's tables become incomplete or complete.
    pub fn changes_what_is_left_out(&self, installed: &DesiredTables) -> bool {
        const LACKS: u32 = Parent::LEFT_OUT | Parent::SHORT;
        let flags = |vid| installed.vlans.get(vid).copied().unwrap_or_default().flags;
        let put = self.vlans.put.iter();
        let mut put = put.map(|(vid, new)| flags(vid) ^ new.flags);
        let mut removed = self.vlans.remove.iter().map(flags);
        put.any(|changed| changed & LACKS != 0) || removed.any(|old| old & LACKS != 0)
    }

    /// Makes the changes in a copy of the tables, as applying the plan does in the maps.
    pub fn apply_to(&self, tables: &mut DesiredTables) {
        self.vlans.apply_to(&mut tables.vlans);
        self.endpoints.apply_to(&mut tables.endpoints);
        self.neighbors.apply_to(&mut tables.neighbors);
        self.routes.apply_to(&mut tables.routes);
    }
}

impl<K: Ord + Copy, V: Copy> Changes<K, V> {
    fn len(&self) -> usize {
        self.remove.len() + self.put.len()
    }

    fn apply_to(&self, entries: &mut BTreeMap<K, V>) {
        for key in &self.remove {
            entries.remove(key);
        }
        entries.extend(self.put.iter().copied());
    }
}

/// Plans the changes to the maps, as far as there is room.
pub fn plan(
    installed: &DesiredTables,
    desired: &Desired,
    capacity: Capacity,
    quotas: Quotas,
) -> Plan {
    let tables = &desired.tables;
    let endpoints = share(
        endpoints(tables, quotas),
        |key| installed.endpoints.contains_key(key),
        capacity.endpoints,
    );
    let neighbors = share(
        addresses(desired, quotas, &endpoints),
        |key| installed.neighbors.contains_key(key),
        capacity.neighbors,
    );
    let routes = share(
        routes(tables, quotas, &endpoints),
        |key| installed.routes.contains_key(key),
        capacity.routes,
    );
    let mut vlans = tables.vlans.clone();
    mark(&mut vlans, tables, &endpoints, &neighbors);
    let none = LeftOut::default();
    Plan {
        vlans: changes(&installed.vlans, &vlans, &none),
        endpoints: changes(&installed.endpoints, &tables.endpoints, &endpoints),
        neighbors: changes(&installed.neighbors, &tables.neighbors, &neighbors),
        routes: changes(&installed.routes, &tables.routes, &routes),
        over: over(&endpoints, &neighbors),
    }
}

/// Lists the endpoints with their namespaces' quotas.
fn endpoints(tables: &DesiredTables, quotas: Quotas) -> impl Iterator<Item = Wanted<EndpointKey>> {
    tables.endpoints.iter().map(move |(&key, endpoint)| {
        let owner = Owner::of(key, Some(endpoint));
        Wanted {
            key,
            owner,
            unit: Default::default(),
            quota: if owner.is_ours() {
                u32::MAX
            } else {
                quotas.endpoints
            },
        }
    })
}

/// Describes an entry that leads to an endpoint, with its quota. If the endpoint itself exceeds its owner's quota, the
/// entry is left out as well.
fn leading_to(
    key: NeighborKey,
    to: EndpointKey,
    tables: &DesiredTables,
    (quotas, endpoints): (Quotas, &LeftOut<EndpointKey>),
) -> Wanted<NeighborKey> {
    let owner = Owner::of(to, tables.endpoints.get(&to));
    Wanted {
        key,
        owner,
        unit: (key.vid, to),
        quota: match endpoints.over.contains_key(&to) {
            true => 0,
            false if owner.is_ours() => u32::MAX,
            false => quotas.addresses,
        },
    }
}

fn addresses<'a>(
    desired: &'a Desired,
    quotas: Quotas,
    left_out: &'a LeftOut<EndpointKey>,
) -> impl Iterator<Item = Wanted<NeighborKey>> + 'a {
    let tables = &desired.tables;
    let there = tables.neighbors.iter();
    let of_one = there.filter(|(key, _)| key.vid != NeighborKey::ANYWHERE);
    let of_one = of_one.map(move |(&key, neighbor)| {
        let to = key.endpoint(neighbor.mac);
        leading_to(key, to, tables, (quotas, left_out))
    });
    // An address that a namespace has on other devices leads to no endpoint, and counts towards one common quota of the
    // namespace.
    let elsewhere = desired.elsewhere.iter().map(move |&(key, nsid)| {
        let owner = Owner::namespace(nsid);
        Wanted {
            key,
            owner,
            unit: (key.vid, EndpointKey::default()),
            quota: if owner.is_ours() {
                u32::MAX
            } else {
                quotas.addresses
            },
        }
    });
    of_one.chain(elsewhere)
}

fn routes<'a>(
    tables: &'a DesiredTables,
    quotas: Quotas,
    left_out: &'a LeftOut<EndpointKey>,
) -> impl Iterator<Item = Wanted<NeighborKey>> + 'a {
    tables.routes.iter().map(move |(&key, route)| {
        let to = EndpointKey {
            vid: route.vid,
            mac: route.mac,
        };
        leading_to(key, to, tables, (quotas, left_out))
    })
}

/// Marks the VLANs whose tables are incomplete, so that an endpoint there does not count as absent. An address over its
/// owner's quota harms only its owner, so it marks no VLAN.
fn mark(
    vlans: &mut BTreeMap<Vid, Parent>,
    tables: &DesiredTables,
    endpoints: &LeftOut<EndpointKey>,
    neighbors: &LeftOut<NeighborKey>,
) {
    for key in endpoints.keys() {
        vlans.entry(key.vid()).or_default().flags |= Parent::LEFT_OUT;
    }
    let short: BTreeSet<_> = neighbors.short.iter().map(|key| key.vid).collect();
    for &vid in &short {
        if vid != NeighborKey::ANYWHERE {
            vlans.entry(Vid::new(vid)).or_default().flags |= Parent::SHORT;
        }
    }
    // Linux answers for such an address on every VLAN that its owner is on.
    if short.contains(&NeighborKey::ANYWHERE) {
        for key in tables.endpoints.keys() {
            vlans.entry(key.vid()).or_default().flags |= Parent::SHORT;
        }
    }
}

fn over(endpoints: &LeftOut<EndpointKey>, neighbors: &LeftOut<NeighborKey>) -> BTreeMap<i32, Over> {
    let mut over = BTreeMap::<i32, Over>::new();
    for owner in endpoints.over.values() {
        over.entry(owner.nsid).or_default().endpoints += 1;
    }
    for owner in neighbors.over.values() {
        over.entry(owner.nsid).or_default().addresses += 1;
    }
    over
}

fn changes<K: Ord + Copy, V: PartialEq + Copy>(
    installed: &BTreeMap<K, V>,
    desired: &BTreeMap<K, V>,
    left_out: &LeftOut<K>,
) -> Changes<K, V> {
    let is_wanted = |key: &K| desired.contains_key(key) && !left_out.contains(key);
    let remove = installed.keys().filter(|key| !is_wanted(key));
    let put = desired
        .iter()
        .filter(|(key, value)| installed.get(key) != Some(value) && !left_out.contains(key));
    Changes {
        remove: remove.copied().collect(),
        put: put.map(|(&key, &value)| (key, value)).collect(),
        left_out: left_out.short.len() as u32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_touched() {
        let installed = BTreeMap::from([(1, 'a'), (2, 'b'), (3, 'c'), (5, 'e')]);
        let desired = BTreeMap::from([(2, 'b'), (3, 'x'), (4, 'd'), (5, 'e'), (6, 'f')]);
        let left_out = LeftOut {
            over: BTreeMap::new(),
            short: BTreeSet::from([5, 6]),
        };
        let changes = changes(&installed, &desired, &left_out);
        assert_eq!(changes.remove, [1, 5]);
        assert_eq!(changes.put, [(3, 'x'), (4, 'd')]);
        assert_eq!(changes.left_out, 2);
    }
}

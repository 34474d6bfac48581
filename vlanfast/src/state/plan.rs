//! The difference between what is in the maps and what should be, and what finds no room.

use std::collections::BTreeMap;

use vlanfast_common::{Endpoint, EndpointKey, Neighbor, NeighborKey, Parent, Route, Settings, Vid};

use super::desired::Tables;

/// How many entries the hashes have room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    pub endpoints: u32,
    pub neighbors: u32,
    pub routes: u32,
}

/// What to do to the maps, removals first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub vlans: Changes<Vid, Parent>,
    pub endpoints: Changes<EndpointKey, Endpoint>,
    pub neighbors: Changes<NeighborKey, Neighbor>,
    pub routes: Changes<NeighborKey, Route>,
}

/// What to do to one map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes<K, V> {
    pub remove: Vec<K>,
    /// New entries, and those whose value changes.
    pub put: Vec<(K, V)>,
    /// Entries that find no room.
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
    /// How many entries are written or removed.
    pub fn len(&self) -> usize {
        self.vlans.len() + self.endpoints.len() + self.neighbors.len() + self.routes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Which tables will lack something, as [`Settings::incomplete`] has it.
    pub fn incomplete(&self) -> u32 {
        let mut tables = 0;
        if self.endpoints.left_out > 0 {
            tables |= Settings::ENDPOINTS;
        }
        if self.neighbors.left_out > 0 {
            tables |= Settings::NEIGHBORS;
        }
        tables
    }

    /// Does to tables what applying the plan does to the maps.
    pub fn apply_to(&self, tables: &mut Tables) {
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

/// From what is installed to what is desired.
pub fn plan(installed: &Tables, desired: &Tables, capacity: Capacity) -> Plan {
    Plan {
        vlans: changes(&installed.vlans, &desired.vlans, Parent::COUNT),
        endpoints: changes(&installed.endpoints, &desired.endpoints, capacity.endpoints),
        neighbors: changes(&installed.neighbors, &desired.neighbors, capacity.neighbors),
        routes: changes(&installed.routes, &desired.routes, capacity.routes),
    }
}

/// What is installed keeps its place; what is new takes the room that is left, in the order of keys.
fn changes<K: Ord + Copy, V: PartialEq + Copy>(
    installed: &BTreeMap<K, V>,
    desired: &BTreeMap<K, V>,
    capacity: u32,
) -> Changes<K, V> {
    let remove: Vec<_> = installed
        .keys()
        .filter(|key| !desired.contains_key(key))
        .copied()
        .collect();
    let mut room = capacity as usize + remove.len() - installed.len().min(capacity as usize);
    let mut changes = Changes {
        remove,
        ..Changes::default()
    };
    for (&key, &value) in desired {
        match installed.get(&key) {
            Some(old) if *old == value => {}
            Some(_) => changes.put.push((key, value)),
            None if room > 0 => {
                room -= 1;
                changes.put.push((key, value));
            }
            None => changes.left_out += 1,
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(keys: &[u32]) -> BTreeMap<u32, u32> {
        keys.iter().map(|&key| (key, 0)).collect()
    }

    #[test]
    fn only_what_differs_is_touched() {
        let installed = BTreeMap::from([(1, 'a'), (2, 'b'), (3, 'c')]);
        let desired = BTreeMap::from([(2, 'b'), (3, 'x'), (4, 'd')]);
        let changes = changes(&installed, &desired, 10);
        assert_eq!(changes.remove, [1]);
        assert_eq!(changes.put, [(3, 'x'), (4, 'd')]);
        assert_eq!(changes.left_out, 0);
    }

    #[test]
    fn a_full_map_keeps_what_it_has_and_heals_when_room_comes() {
        let first = changes(&entries(&[5, 6]), &entries(&[1, 2, 5, 6]), 3);
        assert_eq!((&first.put[..], first.left_out), (&[(1, 0)][..], 1));
        let healed = changes(&entries(&[1, 5, 6]), &entries(&[1, 2, 6]), 3);
        assert_eq!(
            (&healed.remove[..], &healed.put[..]),
            (&[5][..], &[(2, 0)][..])
        );
        assert_eq!(healed.left_out, 0);
    }

    #[test]
    fn nothing_to_do_is_an_empty_plan() {
        let tables = Tables {
            vlans: BTreeMap::from([(
                Vid::from_tci(10),
                Parent {
                    ifindex: 3,
                    ..Parent::default()
                },
            )]),
            ..Tables::default()
        };
        let capacity = Capacity {
            endpoints: 1,
            neighbors: 1,
            routes: 1,
        };
        assert!(plan(&tables, &tables, capacity).is_empty());
        let gone = plan(&tables, &Tables::default(), capacity);
        assert_eq!(
            (gone.len(), &gone.vlans.remove[..]),
            (1, &[Vid::from_tci(10)][..])
        );
    }
}

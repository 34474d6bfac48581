//! Tests of plans from any tables to any others.

use proptest::prelude::*;
use vlanfast::state::{
    plan::{Capacity, Over, Plan, plan},
    quotas::Quotas,
    tables::{Desired, DesiredTables},
};
use vlanfast_common::{Endpoint, EndpointKey, Mac, Neighbor, NeighborKey, Parent, Route, Vid};

fn vid(number: u16) -> Vid {
    Vid::new(number)
}

fn mac(last: u8) -> Mac {
    Mac([2, 0x42, 0, 0, 0, last])
}

const PLENTY: Capacity = Capacity {
    endpoints: 100,
    neighbors: 1_000,
    routes: 100,
};

/// Builds a route to an address of 10.0.0.0/24 that an endpoint on another VLAN has.
fn route((number, last, owner): (u16, u8, u8)) -> (NeighborKey, Route) {
    let route = Route {
        mac: mac(owner).0,
        vid: number + 10,
    };
    let key = NeighborKey::new(vid(number), [10, 0, 0, last].into());
    (key, route)
}

fn tables() -> impl Strategy<Value = DesiredTables> {
    let vlan = (0..8u16, 0..3u32);
    let endpoint = (0..3u16, 0..8u8, 0..3u32);
    let address = (0..3u16, 0..8u8, 0..3u8);
    let few = || 0..12usize;
    let all = (
        prop::collection::vec(vlan, few()),
        prop::collection::vec(endpoint, few()),
        prop::collection::vec(address, few()),
    );
    all.prop_map(|(vlans, endpoints, addresses)| DesiredTables {
        routes: addresses.iter().copied().map(route).collect(),
        vlans: vlans
            .into_iter()
            .map(|(number, ifindex)| {
                (
                    vid(number),
                    Parent {
                        ifindex,
                        ..Parent::default()
                    },
                )
            })
            .collect(),
        endpoints: endpoints
            .into_iter()
            .map(|(number, last, ifindex)| {
                (
                    EndpointKey::new(vid(number), mac(last)),
                    Endpoint {
                        ifindex,
                        ..Endpoint::default()
                    },
                )
            })
            .collect(),
        neighbors: addresses
            .into_iter()
            .map(|(number, last, owner)| {
                let key = NeighborKey::new(vid(number), [10, 0, 0, last].into());
                (
                    key,
                    Neighbor {
                        mac: mac(owner).0,
                        flags: 0,
                    },
                )
            })
            .collect(),
    })
}

/// Plans without quotas.
fn planned(from: &DesiredTables, to: &DesiredTables, capacity: Capacity) -> Plan {
    plan(from, &desired(to), capacity, NO_QUOTAS)
}

fn desired(tables: &DesiredTables) -> Desired {
    Desired {
        tables: tables.clone(),
        ..Desired::default()
    }
}

const NO_QUOTAS: Quotas = Quotas {
    addresses: u32::MAX,
    endpoints: u32::MAX,
};
const LACKS: u32 = Parent::LEFT_OUT | Parent::SHORT;

/// Returns the tables without the flags for incompleteness.
fn without_flags(mut tables: DesiredTables) -> DesiredTables {
    for parent in tables.vlans.values_mut() {
        parent.flags &= !LACKS;
    }
    tables.vlans.retain(|_, parent| !parent.is_absent());
    tables
}

/// Adds endpoints of a namespace to a VLAN, each with a number of addresses.
fn many(tables: &mut DesiredTables, nsid: i32, number: u16, endpoints: u16, addresses: u16) {
    for one in 0..endpoints {
        let [high, low] = one.to_be_bytes();
        let key = EndpointKey::new(vid(number), Mac([2, 0, nsid as u8, 0, high, low]));
        let endpoint = Endpoint {
            nsid,
            ..Endpoint::default()
        };
        tables.endpoints.insert(key, endpoint);
        for each in 0..addresses {
            let [a, b] = (one * addresses + each).to_be_bytes();
            let address = NeighborKey::new(vid(number), [10, nsid as u8, a, b].into());
            let mac = key.mac;
            tables.neighbors.insert(address, Neighbor { mac, flags: 0 });
        }
    }
}

fn lacks(tables: &DesiredTables, number: u16) -> u32 {
    let parent = tables.vlans.get(&vid(number)).copied();
    parent.unwrap_or_default().flags & LACKS
}

/// Counts the endpoints and addresses of a namespace in the tables.
fn has(tables: &DesiredTables, nsid: i32) -> (usize, usize) {
    let its = |endpoint: &&Endpoint| endpoint.nsid == nsid;
    let addresses = tables.neighbors.keys();
    (
        tables.endpoints.values().filter(its).count(),
        addresses.filter(|key| key.address[1] == nsid as u8).count(),
    )
}

#[test]
fn exceeding_a_quota_harms_only_its_owner() {
    let mut to = DesiredTables::default();
    many(&mut to, 1, 10, 1, 9_000);
    many(&mut to, 2, 10, 300, 1);
    many(&mut to, 3, 10, 1, 1);
    many(&mut to, Endpoint::OWN_NAMESPACE, 20, 20, 100);
    let quotas = Quotas {
        addresses: 64,
        endpoints: 200,
    };
    let capacity = Capacity {
        endpoints: 256,
        neighbors: 65_536,
        routes: 1,
    };
    let mut held = DesiredTables::default();
    let first = plan(&held, &desired(&to), capacity, quotas);
    first.apply_to(&mut held);
    assert_eq!(has(&held, 1), (1, 64));
    // The addresses of endpoints that are left out are left out as well.
    assert_eq!(has(&held, 2), (200, 200));
    assert_eq!(has(&held, 3), (1, 1));
    assert_eq!(has(&held, Endpoint::OWN_NAMESPACE), (20, 2_000));
    assert_eq!((lacks(&held, 10), lacks(&held, 20)), (Parent::LEFT_OUT, 0));
    let over = |endpoints, addresses| Over {
        endpoints,
        addresses,
    };
    assert_eq!(
        first.over,
        [(1, over(0, 8_936)), (2, over(100, 100))].into()
    );
    assert!(plan(&held, &desired(&to), capacity, quotas).is_empty());
    // A new entry with a lower key does not replace an installed one.
    let lower = NeighborKey::new(vid(10), [1, 1, 0, 0].into());
    let mac = [2, 0, 1, 0, 0, 0];
    to.neighbors.insert(lower, Neighbor { mac, flags: 0 });
    assert!(plan(&held, &desired(&to), capacity, quotas).is_empty());
}

#[test]
fn in_a_full_map_every_owner_has_a_first_entry_before_any_has_a_second() {
    let mut to = DesiredTables::default();
    many(&mut to, 1, 10, 300, 7);
    let capacity = Capacity {
        endpoints: 256,
        neighbors: 1_024,
        routes: 1,
    };
    let mut held = DesiredTables::default();
    planned(&held, &to, capacity).apply_to(&mut held);
    assert_eq!(has(&held, 1), (256, 1_024));
    assert_eq!(lacks(&held, 10), LACKS);
    for nsid in 2..50 {
        many(&mut to, nsid, 20, 1, 2);
    }
    let second = planned(&held, &to, capacity);
    assert!(second.changes_what_is_left_out(&held) || lacks(&held, 20) == 0);
    second.apply_to(&mut held);
    assert!((2..50).all(|nsid| has(&held, nsid) == (1, 2)));
    assert_eq!(has(&held, 1), (256 - 48, 1_024 - 2 * 48));
    assert_eq!((lacks(&held, 10), lacks(&held, 20)), (LACKS, 0));
    assert!(planned(&held, &to, capacity).is_empty());
    to.endpoints.retain(|_, endpoint| endpoint.nsid != 1);
    to.neighbors.retain(|key, _| key.address[1] != 1);
    let third = planned(&held, &to, capacity);
    assert!(third.changes_what_is_left_out(&held));
    third.apply_to(&mut held);
    assert_eq!(held, to);
}

#[test]
fn addresses_on_other_devices_have_the_quota_of_their_namespace() {
    let mut to = DesiredTables::default();
    many(&mut to, 1, 10, 1, 1);
    let mut to = desired(&to);
    for last in 0..200 {
        let key = NeighborKey::new(Vid::UNTAGGED, [172, 17, 0, last].into()).anywhere();
        to.tables.neighbors.insert(key, Neighbor::default());
        to.elsewhere.insert((key, 1));
        // Another namespace also has a few of the addresses.
        if last >= 190 {
            to.elsewhere.insert((key, 2));
        }
    }
    let quotas = Quotas {
        addresses: 64,
        endpoints: 1,
    };
    let mut held = DesiredTables::default();
    plan(&held, &to, PLENTY, quotas).apply_to(&mut held);
    assert_eq!(held.neighbors.len(), 1 + 64 + 10);
    assert_eq!(lacks(&held, 10), 0);
    let little = Capacity {
        neighbors: 40,
        ..PLENTY
    };
    let mut held = DesiredTables::default();
    plan(&held, &to, little, quotas).apply_to(&mut held);
    assert_eq!(
        (held.neighbors.len(), lacks(&held, 10)),
        (40, Parent::SHORT)
    );
}

proptest! {
    #[test]
    fn a_plan_leads_from_any_tables_to_any_others(mut from in tables(), to in tables()) {
        let first = planned(&from, &to, PLENTY);
        first.apply_to(&mut from);
        prop_assert_eq!(&from, &to);
        prop_assert!(planned(&from, &to, PLENTY).is_empty());
    }

    #[test]
    fn a_plan_never_overfills_a_map_and_leaves_out_no_more_than_necessary(
        rounds in prop::collection::vec(tables(), 1..5), endpoints in 1..6u32, neighbors in 1..6u32,
    ) {
        let capacity = Capacity { endpoints, neighbors, routes: neighbors };
        let mut held = DesiredTables::default();
        for to in rounds {
            let plan = planned(&held, &to, capacity);
            plan.apply_to(&mut held);
            prop_assert!(planned(&held, &to, capacity).is_empty());
            prop_assert!(held.endpoints.len() <= endpoints as usize);
            let says_so = held.vlans.values().any(|parent| parent.has(LACKS));
            prop_assert_eq!(says_so, without_flags(held.clone()) != without_flags(to.clone()));
            let expected = to.endpoints.len().min(endpoints as usize);
            prop_assert_eq!(held.endpoints.len(), expected);
            prop_assert_eq!(plan.endpoints.left_out as usize, to.endpoints.len() - expected);
            prop_assert_eq!(held.neighbors.len(), to.neighbors.len().min(neighbors as usize));
            prop_assert!(held.endpoints.iter().all(|(key, value)| to.endpoints[key] == *value));
        }
    }
}

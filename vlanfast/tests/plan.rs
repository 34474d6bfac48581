//! Plans between any tables whatever.

use proptest::prelude::*;
use vlanfast::state::{
    desired::Tables,
    plan::{Capacity, plan},
};
use vlanfast_common::{Endpoint, EndpointKey, Mac, Neighbor, NeighborKey, Parent, Route, Vid};

fn vid(number: u16) -> Vid {
    Vid::from_tci(number)
}

fn mac(last: u8) -> Mac {
    Mac([2, 0x42, 0, 0, 0, last])
}

const PLENTY: Capacity = Capacity {
    endpoints: 100,
    neighbors: 100,
    routes: 100,
};

fn tables() -> impl Strategy<Value = Tables> {
    let vlan = (0..8u16, 0..3u32);
    let endpoint = (0..3u16, 0..8u8, 0..3u32);
    let address = (0..3u16, 0..8u8, 0..3u8);
    let few = || 0..12usize;
    let all = (
        prop::collection::vec(vlan, few()),
        prop::collection::vec(endpoint, few()),
        prop::collection::vec(address, few()),
    );
    all.prop_map(|(vlans, endpoints, addresses)| Tables {
        routes: addresses
            .iter()
            .map(|&(number, last, owner)| {
                let route = Route {
                    mac: mac(owner).0,
                    vid: number + 10,
                };
                let key = NeighborKey::new(vid(number), [10, 0, 0, last].into());
                (key, route)
            })
            .collect(),
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

proptest! {
    #[test]
    fn a_plan_leads_from_any_tables_to_any_others(mut from in tables(), to in tables()) {
        let first = plan(&from, &to, PLENTY);
        first.apply_to(&mut from);
        prop_assert_eq!(&from, &to);
        prop_assert!(plan(&from, &to, PLENTY).is_empty());
    }

    #[test]
    fn a_plan_never_overfills_and_leaves_out_just_what_finds_no_room(
        rounds in prop::collection::vec(tables(), 1..5), endpoints in 1..6u32, neighbors in 1..6u32,
    ) {
        let capacity = Capacity { endpoints, neighbors, routes: neighbors };
        let mut held = Tables::default();
        for to in rounds {
            let plan = plan(&held, &to, capacity);
            plan.apply_to(&mut held);
            prop_assert!(held.endpoints.len() <= endpoints as usize);
            prop_assert_eq!(plan.incomplete() != 0, held != to);
            let expected = to.endpoints.len().min(endpoints as usize);
            prop_assert_eq!(held.endpoints.len(), expected);
            prop_assert_eq!(plan.endpoints.left_out as usize, to.endpoints.len() - expected);
            prop_assert_eq!(held.neighbors.len(), to.neighbors.len().min(neighbors as usize));
            prop_assert!(held.endpoints.iter().all(|(key, value)| to.endpoints[key] == *value));
        }
    }
}

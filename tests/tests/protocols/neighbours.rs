//! The neighbour tables of all stations after the same traffic.

use std::collections::BTreeMap;

use vlanfast_tests::in_the_lab;

use crate::{
    alike,
    vlan10::{
        Known, STATIONS,
        Station::{self, A, B, C, Elsewhere, Host, Router},
        Vlan10, at_once, moment,
    },
};

type Tables = BTreeMap<(Station, String), Option<Known>>;

/// Returns the tables of all stations, limited to the addresses that the test itself uses: entries for link-local
/// addresses depend on when the kernel probes a neighbour.
fn tables(vlan10: &Vlan10) -> Tables {
    let mut tables = Tables::new();
    for observer in STATIONS {
        let known = vlan10.neighbours(observer).unwrap();
        for other in STATIONS.into_iter().chain([Elsewhere]) {
            for address in [other.ipv4(), other.ipv6()] {
                let entry = known.get(&address).copied();
                tables.insert((observer, address), entry);
            }
        }
    }
    tables
}

#[test]
fn neighbour_tables_are_the_same_after_the_same_traffic() {
    in_the_lab!("neighbour tables");
    let (outcome, tables) = alike(|vlan10| {
        let pairs = [
            (Router, A),
            (B, Router),
            (Router, Host),
            (A, B),
            (C, B),
            // These pings fail: macvlan keeps the stations apart, or the target is absent.
            (Host, C),
            (Router, Elsewhere),
            (A, Elsewhere),
        ];
        let outcome = at_once(pairs, |(from, to)| {
            [to.ipv4(), to.ipv6()].map(|address| vlan10.pings(from, &address).unwrap())
        });
        // Requests without an answer leave no further entries.
        moment();
        (outcome, tables(vlan10))
    });
    let mut expected = [[true; 2]; 8];
    expected[5..].fill([false; 2]);
    assert_eq!(outcome, expected);
    let entry = |observer, address: String| tables[&(observer, address)];
    // Both ends of an exchange learn of each other, and the other stations do not.
    for (one, other) in [(Router, A), (B, Router), (Router, Host), (A, B), (C, B)] {
        for (observer, whose) in [(one, other), (other, one)] {
            for address in [whose.ipv4(), whose.ipv6()] {
                let found = entry(observer, address);
                assert_eq!(found, Some(Known::At(whose)), "{observer:?} of {whose:?}");
            }
        }
    }
    for observer in [Router, A] {
        for address in [Elsewhere.ipv4(), Elsewhere.ipv6()] {
            assert_eq!(
                entry(observer, address),
                Some(Known::Failed),
                "{observer:?}"
            );
        }
    }
    assert_eq!(entry(Router, C.ipv4()), None);
    assert_eq!(entry(C, Router.ipv6()), None);
}

//! ARP (RFC 826), duplicate detection and announcements (RFC 5227), as `arping` does them.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use vlanfast_tests::in_the_lab;

use crate::{
    alike,
    vlan10::{
        Known, STATIONS,
        Station::{self, A, B, C, Elsewhere, Host, Router},
        Vlan10, at_once, moment,
    },
};

/// The exit code of `arping`, and the stations that answered.
#[derive(Debug, PartialEq, Eq)]
struct Answers {
    code: Option<i32>,
    from: BTreeSet<Station>,
}

fn arping(vlan10: &Vlan10, from: Station, options: &str, address: &str) -> Result<Answers> {
    let ended = vlan10.end(from, &format!("arping {options} -I $DEV {address}"))?;
    // `Unicast reply from 192.0.2.11 [02:00:00:00:00:0A]  0.712ms`
    let macs = ended.stdout.lines().filter_map(|line| {
        let (_, rest) = line.split_once(" reply from ")?;
        Some(rest.split_once('[')?.1.split_once(']')?.0)
    });
    Ok(Answers {
        code: ended.code,
        from: macs.map(|mac| vlan10.owner(mac)).collect::<Result<_>>()?,
    })
}

/// Options for two answers or three seconds, with every request a broadcast.
const ASK: &str = "-b -c 2 -w 3";
/// Options for a probe whether an address is taken; the sender has no address yet.
const PROBE: &str = "-D -c 2 -w 2";

#[test]
fn arping_is_answered_by_whoever_has_the_address() {
    in_the_lab!("arping");
    let outcome = alike(|vlan10| {
        // Linux answers for each of its addresses on every device.
        vlan10.run(C, "ip addr add 192.0.2.70/32 dev lo").unwrap();
        // Two stations may have one address, and both answer.
        vlan10.run(A, "ip addr add 192.0.2.71/24 dev $DEV").unwrap();
        vlan10.run(B, "ip addr add 192.0.2.71/24 dev $DEV").unwrap();
        moment();
        let of = |station: Station| station.ipv4();
        let asked = [
            (Router, of(A)),
            (Router, of(B)),
            (Router, of(C)),
            (Router, of(Host)),
            (Router, of(Elsewhere)),
            (Router, "192.0.2.70".into()),
            (Router, "192.0.2.71".into()),
            (A, of(Router)),
            (A, of(B)),
            (A, of(Elsewhere)),
            (Host, of(Router)),
        ];
        let answers = at_once(asked, |(from, address)| {
            arping(vlan10, from, ASK, &address).unwrap().from
        });
        assert!(vlan10.is_steered().unwrap());
        answers
    });
    let expected = [
        vec![A],
        vec![B],
        vec![C],
        vec![Host],
        vec![],
        vec![C],
        vec![A, B],
        vec![Router],
        vec![B],
        vec![],
        vec![Router],
    ];
    assert_eq!(outcome, expected.map(BTreeSet::from_iter));
}

#[test]
fn arping_detects_an_address_that_is_taken() {
    in_the_lab!("arping -D");
    let outcome = alike(|vlan10| {
        let probed = [
            (Router, A),
            (Router, Host),
            (Router, Elsewhere),
            (Host, Router),
            (A, B),
            (A, Router),
            (A, Elsewhere),
        ];
        at_once(probed, |(from, whose)| {
            arping(vlan10, from, PROBE, &whose.ipv4()).unwrap()
        })
    });
    let answers = |code, from: &[Station]| Answers {
        code: Some(code),
        from: from.iter().copied().collect(),
    };
    let (taken, free) = (|by| answers(1, &[by]), || answers(0, &[]));
    let expected = [
        taken(A),
        taken(Host),
        free(),
        taken(Router),
        taken(B),
        taken(Router),
        free(),
    ];
    assert_eq!(outcome, expected);
}

/// An address moves from one container to another, and is removed at last.
#[test]
fn an_address_that_moves_is_found_where_it_is() {
    in_the_lab!("moves");
    let outcome = alike(|vlan10| {
        let add = "ip addr add 192.0.2.80/24 dev $DEV";
        let del = "ip addr del 192.0.2.80/24 dev $DEV";
        let steps: [&[(Station, &str)]; 5] = [
            &[(A, add)],
            &[(A, del), (B, add)],
            &[(B, del), (Router, add)],
            // The old owner's device is down and still has the address.
            &[
                (Router, del),
                (B, add),
                (B, "ip link set $DEV down"),
                (C, add),
            ],
            &[(C, del)],
        ];
        steps.map(|step| {
            for (station, line) in step {
                vlan10.run(*station, line).unwrap();
            }
            moment();
            // Each of the two containers has the address at times.
            at_once([Router, A], |from| {
                arping(vlan10, from, ASK, "192.0.2.80").unwrap().from
            })
        })
    });
    let both = |station| [BTreeSet::from([station]), BTreeSet::from([station])];
    let expected = [
        [BTreeSet::from([A]), BTreeSet::new()],
        both(B),
        [BTreeSet::new(), BTreeSet::from([Router])],
        both(C),
        [BTreeSet::new(), BTreeSet::new()],
    ];
    assert_eq!(outcome, expected);
}

/// The router gets another MAC, as when another router takes over, and announces it: stations that know the address
/// take the new MAC without a request, and others learn nothing.
#[test]
fn a_gratuitous_arp_reaches_all_that_know_the_address() {
    in_the_lab!("arping -U, -A");
    let outcome = alike(|vlan10| {
        let address = Router.ipv4();
        let know = [Host, A, B];
        for station in know {
            assert!(vlan10.pings(station, &address).unwrap(), "{station:?}");
        }
        // The announcement is a request and a reply (RFC 5227, 3): receivers must accept both.
        [("-U", "02:00:00:00:00:f1"), ("-A", "02:00:00:00:00:f2")].map(|(how, mac)| {
            vlan10
                .run(Router, &format!("ip link set $DEV address {mac}"))
                .unwrap();
            let announce = format!("arping {how} -c 1 -I $DEV {address}");
            vlan10.run(Router, &announce).unwrap();
            moment();
            let mut known = BTreeMap::new();
            for station in STATIONS {
                known.insert(station, vlan10.known(station, &address).unwrap());
            }
            let reached = know.map(|station| vlan10.pings(station, &address).unwrap());
            (known, reached)
        })
    });
    for (known, reached) in outcome {
        for station in [Host, A, B] {
            assert_eq!(known[&station], Some(Known::At(Router)), "{station:?}");
        }
        assert_eq!(known[&C], None);
        assert_eq!(reached, [true; 3]);
    }
}

/// A container announces itself: macvlan delivers it to the neighbours, and the wire to the router.
#[test]
fn a_containers_gratuitous_arp_reaches_the_router_and_its_neighbours() {
    in_the_lab!("arping -U from a container");
    let outcome = alike(|vlan10| {
        let address = A.ipv4();
        for station in [Router, B, C] {
            assert!(vlan10.pings(station, &address).unwrap(), "{station:?}");
        }
        vlan10
            .run(A, "ip link set $DEV address 02:00:00:00:00:f3")
            .unwrap();
        // vlanfast knows of the new MAC before a station asks for it.
        moment();
        vlan10
            .run(A, &format!("arping -U -c 1 -I $DEV {address}"))
            .unwrap();
        moment();
        let known = [Router, B, C].map(|station| vlan10.known(station, &address).unwrap());
        vlan10.run(Router, "ip neigh flush all dev $DEV").unwrap();
        let reached = [Router, B, C].map(|station| vlan10.pings(station, &address).unwrap());
        (known, reached)
    });
    assert_eq!(outcome, ([Some(Known::At(A)); 3], [true; 3]));
}

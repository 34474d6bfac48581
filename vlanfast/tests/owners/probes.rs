//! Tests of the probes for other owners of an address on the wire.

use std::{collections::BTreeMap, time::Duration};

use proptest::prelude::*;
use vlanfast::state::{
    address_conflicts::AddressProbes,
    claims::{conflicts, idle},
    config::VlanConfig,
    tables::DesiredTables,
    vids::Vids,
};
use vlanfast_common::{Claim, Endpoint, EndpointKey, Neighbor, NeighborKey, Parent, Vid};

use crate::{key, mac};

const SECOND: Duration = Duration::from_secs(1);
const ADDRESS: &str = "10.0.10.5";

fn at(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn claim(last: u8, heard: Duration) -> BTreeMap<NeighborKey, Claim> {
    let claim = Claim {
        heard: heard.as_nanos() as u64,
        mac: mac(last).0,
        reserved: 0,
    };
    BTreeMap::from([(key(10, ADDRESS), claim)])
}

/// An endpoint on VLAN 10 with an address, and the state of its probes.
struct OneAddress {
    probes: AddressProbes,
    tables: DesiredTables,
}

impl OneAddress {
    fn new(flags: u16) -> Self {
        let parent = Parent {
            ifindex: 10,
            flags: Parent::UP,
            ..Parent::default()
        };
        let neighbor = Neighbor {
            mac: mac(5).0,
            flags,
        };
        Self {
            probes: AddressProbes::default(),
            tables: DesiredTables {
                vlans: BTreeMap::from([(Vid::new(10), parent)]),
                neighbors: BTreeMap::from([(key(10, ADDRESS), neighbor)]),
                ..DesiredTables::default()
            },
        }
    }

    /// Runs a round and returns the flags of the address.
    fn round(&mut self, claims: &BTreeMap<NeighborKey, Claim>, now: u64) -> u16 {
        let mut tables = self.tables.clone();
        self.probes
            .assess(&mut tables, claims, |vid| vid.get() == 10, at(now));
        tables.neighbors[&key(10, ADDRESS)].flags
    }

    fn asks(&mut self, now: u64) -> bool {
        self.probes.take_due(at(now)) == [key(10, ADDRESS)]
    }
}

#[test]
fn an_address_is_certain_after_two_unanswered_probes() {
    let (mut fixture, nobody) = (OneAddress::new(0), BTreeMap::new());
    assert_eq!(fixture.round(&nobody, 0), Neighbor::UNSURE);
    assert_eq!(fixture.probes.due(), Some(at(0)));
    assert!(fixture.asks(0));
    assert!(!fixture.asks(49));
    assert!(fixture.asks(50));
    assert!(!fixture.asks(149) && !fixture.probes.is_ripe(at(149)));
    assert_eq!(fixture.round(&nobody, 149), Neighbor::UNSURE);
    assert_eq!(fixture.probes.due(), Some(at(150)));
    assert!(fixture.probes.is_ripe(at(150)));
    assert_eq!(fixture.round(&nobody, 150), 0);
    assert_eq!(fixture.probes.due(), None);
    // A later claim still counts.
    assert_eq!(fixture.round(&claim(9, at(900)), 1000), Neighbor::FOREIGN);
}

#[test]
fn a_claimant_that_does_not_answer_is_gone() {
    let mut fixture = OneAddress::new(0);
    // The claimant has just announced the address, or the host still has a neighbour entry for it.
    let claimed = claim(9, at(60));
    fixture.round(&BTreeMap::new(), 0);
    assert!(fixture.asks(0) && fixture.asks(50));
    assert_eq!(fixture.round(&claimed, 150), Neighbor::FOREIGN);
    for time in [150, 1150, 2150] {
        assert_eq!(fixture.probes.due(), Some(at(time)));
        assert!(fixture.asks(time) && !fixture.asks(time + 999));
    }
    assert_eq!(fixture.round(&claimed, 3149), Neighbor::FOREIGN);
    assert_eq!(fixture.probes.refuted(&claimed, at(3149)), []);
    assert!(!fixture.probes.is_ripe(at(3149)) && fixture.probes.is_ripe(at(3150)));
    assert_eq!(fixture.probes.due(), Some(at(3150)));
    let refuted = fixture.probes.refuted(&claimed, at(3150));
    assert_eq!(refuted, [key(10, ADDRESS)]);
    // Its silence has the same effect as that of a wire without claimants.
    assert_eq!(fixture.round(&BTreeMap::new(), 3150), 0);
    assert!(fixture.probes.is_certain(&key(10, ADDRESS)));
}

#[test]
fn a_claimant_that_answers_keeps_its_claim_and_is_probed_again() {
    let mut fixture = OneAddress::new(0);
    assert_eq!(fixture.round(&claim(9, at(0)), 0), Neighbor::FOREIGN);
    assert!(fixture.asks(0) && fixture.asks(1000) && fixture.asks(2000));
    // The claimant did not answer the first probe; and the clock of the programs may be behind.
    let answered = claim(9, at(1001));
    assert_eq!(fixture.probes.refuted(&answered, at(3000)), []);
    assert!(fixture.probes.is_ripe(at(3000)));
    assert_eq!(fixture.round(&answered, 3000), Neighbor::FOREIGN);
    assert!(!fixture.probes.is_ripe(at(3000)));
    assert_eq!(fixture.probes.due(), Some(at(13_000)));
    assert!(!fixture.asks(12_999) && fixture.asks(13_000));
    let late = claim(9, at(12_995));
    assert_eq!(fixture.round(&late, 13_001), Neighbor::FOREIGN);
    assert_eq!(fixture.probes.due(), Some(at(23_001)));
}

#[test]
fn a_claim_that_cannot_be_probed_expires() {
    let mut fixture = OneAddress::new(0);
    let parent = fixture.tables.vlans.get_mut(&Vid::new(10)).unwrap();
    parent.flags = 0;
    let claimed = claim(9, at(60));
    assert_eq!(fixture.round(&claimed, 60), Neighbor::FOREIGN);
    assert!(!fixture.asks(100_000));
    assert_eq!(fixture.probes.refuted(&claimed, at(100_000)), []);
    assert_eq!(idle(&claimed, &fixture.tables, at(150_060)), []);
    assert_eq!(
        idle(&claimed, &fixture.tables, at(150_061)),
        [key(10, ADDRESS)]
    );
    let parent = fixture.tables.vlans.get_mut(&Vid::new(10)).unwrap();
    parent.flags = Parent::UP;
    fixture.round(&claimed, 100_000);
    assert!(fixture.asks(100_000));
}

#[test]
fn an_assigned_address_stays_usable_and_its_conflict_is_shown() {
    let mut fixture = OneAddress::new(Neighbor::ASSIGNED);
    assert_eq!(fixture.round(&BTreeMap::new(), 0), Neighbor::ASSIGNED);
    assert_eq!(fixture.probes.due(), None);
    let claimed = claim(9, at(0));
    assert_eq!(fixture.round(&claimed, 10), Neighbor::ASSIGNED);
    let shown: Vec<_> = conflicts(&fixture.tables, &claimed).collect();
    assert_eq!(
        shown.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [
            "10.0.10.5 on VLAN 10: 02:00:00:00:00:09 on the wire has it, and 02:00:00:00:00:05 here, too"
        ]
    );
}

#[test]
fn no_probe_is_sent_for_an_address_that_does_not_matter_or_by_a_device_that_is_down() {
    let nobody = BTreeMap::new();
    let mut down = OneAddress::new(0);
    let parent = down.tables.vlans.get_mut(&Vid::new(10)).unwrap();
    parent.flags = 0;
    assert_eq!(down.round(&nobody, 0), Neighbor::UNSURE);
    assert!(!down.asks(1000));
    assert_eq!(down.round(&nobody, 1000), Neighbor::UNSURE);
    let parent = down.tables.vlans.get_mut(&Vid::new(10)).unwrap();
    parent.flags = Parent::UP;
    down.round(&nobody, 2000);
    assert!(down.asks(2000));
    let mut away = OneAddress::new(0);
    away.tables.vlans.clear();
    assert_eq!(away.round(&nobody, 0), 0);
    assert!(!away.asks(0));
    let mut config = VlanConfig::default();
    assert!(!config.need_owners(Vid::new(10)));
    config.host_access = Vids::All;
    assert!(config.need_owners(Vid::new(10)));
}

/// A container may have thousands of addresses whose keys precede those of all others.
#[test]
fn an_owner_of_many_addresses_does_not_delay_others() {
    let mut fixture = OneAddress::new(0);
    let many = (0..5000u32).map(|it| NeighborKey::ipv4(Vid::new(10), it.to_be_bytes()));
    let noisy = Neighbor {
        mac: mac(7).0,
        flags: 0,
    };
    for (last, nsid) in [(5, 1), (7, 2)] {
        let endpoint = Endpoint {
            nsid,
            ..Endpoint::default()
        };
        let key = EndpointKey::new(Vid::new(10), mac(last));
        fixture.tables.endpoints.insert(key, endpoint);
    }
    fixture
        .tables
        .neighbors
        .extend(many.map(|key| (key, noisy)));
    let quiet = key(10, ADDRESS);
    let nobody = BTreeMap::new();
    fixture.round(&nobody, 0);
    assert!(fixture.probes.take_due(at(0)).contains(&quiet));
    assert!(fixture.probes.take_due(at(50)).contains(&quiet));
    assert_eq!(fixture.round(&nobody, 150), 0);
    // The other addresses are probed from the next second on, and that time is known.
    assert_eq!(fixture.probes.take_due(at(999)), []);
    assert_eq!(fixture.probes.due(), Some(at(1000)));
    assert!(!fixture.probes.take_due(at(1000)).is_empty());
}

#[test]
fn a_claim_by_an_endpoint_or_on_no_endpoint_is_dropped() {
    let mut fixture = OneAddress::new(0);
    let claimed = claim(9, at(0));
    assert_eq!(idle(&claimed, &fixture.tables, at(1)), []);
    let receiver = EndpointKey::new(Vid::new(10), mac(9));
    fixture
        .tables
        .endpoints
        .insert(receiver, Endpoint::default());
    assert_eq!(idle(&claimed, &fixture.tables, at(1)), [key(10, ADDRESS)]);
    fixture.tables = DesiredTables::default();
    assert_eq!(idle(&claimed, &fixture.tables, at(1)), [key(10, ADDRESS)]);
}

proptest! {
    /// However many addresses there are, the rate of probes is limited, and all are probed in the end.
    #[test]
    fn the_rate_of_probes_is_limited(number in 1..700u32) {
        let mut fixture = OneAddress::new(0);
        fixture.tables.neighbors = (0..number)
            .map(|it| {
                let [.., x, y] = it.to_be_bytes();
                let neighbor = Neighbor { mac: [2, 0, 0, 0, x, y], flags: 0 };
                (NeighborKey::ipv4(Vid::new(10), it.to_be_bytes()), neighbor)
            })
            .collect();
        let nobody = BTreeMap::new();
        let (mut asked, mut now) = (vec![], Duration::ZERO);
        loop {
            let mut tables = fixture.tables.clone();
            fixture.probes.assess(&mut tables, &nobody, |_| true, now);
            let Some(due) = fixture.probes.due() else { break };
            prop_assert!(due > now || asked.is_empty() || fixture.probes.is_ripe(now), "{now:?}");
            now = now.max(due);
            asked.push((now, fixture.probes.take_due(now).len()));
        }
        let sum: usize = asked.iter().map(|(_, probes)| probes).sum();
        prop_assert_eq!(sum, 2 * number as usize);
        for (start, _) in &asked {
            let within = |(at, _): &&(Duration, usize)| *at >= *start && *at < *start + SECOND;
            let sum: usize = asked.iter().filter(within).map(|(_, probes)| probes).sum();
            prop_assert!(sum <= 400, "{sum}");
        }
    }
}

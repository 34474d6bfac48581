//! Whether the wire has another owner.

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

/// A receiver on VLAN 10 with an address, and what becomes of that.
struct Scene {
    vouching: AddressProbes,
    tables: DesiredTables,
}

impl Scene {
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
            vouching: AddressProbes::default(),
            tables: DesiredTables {
                vlans: BTreeMap::from([(Vid::new(10), parent)]),
                neighbors: BTreeMap::from([(key(10, ADDRESS), neighbor)]),
                ..DesiredTables::default()
            },
        }
    }

    /// The flags after a round.
    fn round(&mut self, claims: &BTreeMap<NeighborKey, Claim>, now: u64) -> u16 {
        let mut tables = self.tables.clone();
        self.vouching
            .judge(&mut tables, claims, |vid| vid.get() == 10, at(now));
        tables.neighbors[&key(10, ADDRESS)].flags
    }

    fn asks(&mut self, now: u64) -> bool {
        self.vouching.questions(at(now)) == [key(10, ADDRESS)]
    }
}

#[test]
fn an_address_is_sure_once_the_wire_was_asked_twice_and_said_nothing() {
    let (mut scene, nobody) = (Scene::new(0), BTreeMap::new());
    assert_eq!(scene.round(&nobody, 0), Neighbor::UNSURE);
    assert_eq!(scene.vouching.due(), Some(at(0)));
    assert!(scene.asks(0));
    assert!(!scene.asks(49));
    assert!(scene.asks(50));
    assert!(!scene.asks(149) && !scene.vouching.is_ripe(at(149)));
    assert_eq!(scene.round(&nobody, 149), Neighbor::UNSURE);
    assert_eq!(scene.vouching.due(), Some(at(150)));
    assert!(scene.vouching.is_ripe(at(150)));
    assert_eq!(scene.round(&nobody, 150), 0);
    assert_eq!(scene.vouching.due(), None);
    // Whoever speaks up later is heard all the same.
    assert_eq!(scene.round(&claim(9, at(900)), 1000), Neighbor::FOREIGN);
}

#[test]
fn whoever_claims_an_address_and_does_not_answer_is_not_there() {
    let mut scene = Scene::new(0);
    // He has spoken just now, or the host remembers him from before.
    let claimed = claim(9, at(60));
    scene.round(&BTreeMap::new(), 0);
    assert!(scene.asks(0) && scene.asks(50));
    assert_eq!(scene.round(&claimed, 150), Neighbor::FOREIGN);
    for time in [150, 1150, 2150] {
        assert_eq!(scene.vouching.due(), Some(at(time)));
        assert!(scene.asks(time) && !scene.asks(time + 999));
    }
    assert_eq!(scene.round(&claimed, 3149), Neighbor::FOREIGN);
    assert_eq!(scene.vouching.refuted(&claimed, at(3149)), []);
    assert!(!scene.vouching.is_ripe(at(3149)) && scene.vouching.is_ripe(at(3150)));
    assert_eq!(scene.vouching.due(), Some(at(3150)));
    let refuted = scene.vouching.refuted(&claimed, at(3150));
    assert_eq!(refuted, [key(10, ADDRESS)]);
    // His silence counts as everybody's does.
    assert_eq!(scene.round(&BTreeMap::new(), 3150), 0);
    assert!(scene.vouching.is_vouched(&key(10, ADDRESS)));
}

#[test]
fn who_answers_keeps_his_claim_and_is_asked_again() {
    let mut scene = Scene::new(0);
    assert_eq!(scene.round(&claim(9, at(0)), 0), Neighbor::FOREIGN);
    assert!(scene.asks(0) && scene.asks(1000) && scene.asks(2000));
    // Not to the first question; and the programs' clock may be behind.
    let answered = claim(9, at(1001));
    assert_eq!(scene.vouching.refuted(&answered, at(3000)), []);
    assert!(scene.vouching.is_ripe(at(3000)));
    assert_eq!(scene.round(&answered, 3000), Neighbor::FOREIGN);
    assert!(!scene.vouching.is_ripe(at(3000)));
    assert_eq!(scene.vouching.due(), Some(at(13_000)));
    assert!(!scene.asks(12_999) && scene.asks(13_000));
    let late = claim(9, at(12_995));
    assert_eq!(scene.round(&late, 13_001), Neighbor::FOREIGN);
    assert_eq!(scene.vouching.due(), Some(at(23_001)));
}

#[test]
fn where_nobody_can_be_asked_a_claim_ends_with_its_time() {
    let mut scene = Scene::new(0);
    let parent = scene.tables.vlans.get_mut(&Vid::new(10)).unwrap();
    parent.flags = 0;
    let claimed = claim(9, at(60));
    assert_eq!(scene.round(&claimed, 60), Neighbor::FOREIGN);
    assert!(!scene.asks(100_000));
    assert_eq!(scene.vouching.refuted(&claimed, at(100_000)), []);
    assert_eq!(idle(&claimed, &scene.tables, at(150_060)), []);
    assert_eq!(
        idle(&claimed, &scene.tables, at(150_061)),
        [key(10, ADDRESS)]
    );
    let parent = scene.tables.vlans.get_mut(&Vid::new(10)).unwrap();
    parent.flags = Parent::UP;
    scene.round(&claimed, 100_000);
    assert!(scene.asks(100_000));
}

#[test]
fn what_was_given_stays_usable_and_its_conflict_is_shown() {
    let mut scene = Scene::new(Neighbor::ASSIGNED);
    assert_eq!(scene.round(&BTreeMap::new(), 0), Neighbor::ASSIGNED);
    assert_eq!(scene.vouching.due(), None);
    let claimed = claim(9, at(0));
    assert_eq!(scene.round(&claimed, 10), Neighbor::ASSIGNED);
    let shown: Vec<_> = conflicts(&scene.tables, &claimed).collect();
    assert_eq!(
        shown.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [
            "10.0.10.5 on VLAN 10: 02:00:00:00:00:09 on the wire has it, and 02:00:00:00:00:05 here, too"
        ]
    );
}

#[test]
fn nobody_is_asked_for_an_address_that_does_not_matter_or_by_a_device_that_is_down() {
    let nobody = BTreeMap::new();
    let mut down = Scene::new(0);
    let parent = down.tables.vlans.get_mut(&Vid::new(10)).unwrap();
    parent.flags = 0;
    assert_eq!(down.round(&nobody, 0), Neighbor::UNSURE);
    assert!(!down.asks(1000));
    assert_eq!(down.round(&nobody, 1000), Neighbor::UNSURE);
    let parent = down.tables.vlans.get_mut(&Vid::new(10)).unwrap();
    parent.flags = Parent::UP;
    down.round(&nobody, 2000);
    assert!(down.asks(2000));
    let mut away = Scene::new(0);
    away.tables.vlans.clear();
    assert_eq!(away.round(&nobody, 0), 0);
    assert!(!away.asks(0));
    let mut wishes = VlanConfig::default();
    assert!(!wishes.need_owners(Vid::new(10)));
    wishes.host_access = Vids::All;
    assert!(wishes.need_owners(Vid::new(10)));
}

/// A container may have thousands of addresses, all of them before another's in the order of keys.
#[test]
fn whoever_has_many_addresses_keeps_nobody_else_waiting() {
    let mut scene = Scene::new(0);
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
        scene.tables.endpoints.insert(key, endpoint);
    }
    scene.tables.neighbors.extend(many.map(|key| (key, noisy)));
    let quiet = key(10, ADDRESS);
    let nobody = BTreeMap::new();
    scene.round(&nobody, 0);
    assert!(scene.vouching.questions(at(0)).contains(&quiet));
    assert!(scene.vouching.questions(at(50)).contains(&quiet));
    assert_eq!(scene.round(&nobody, 150), 0);
    // The others have their turn from the next second on, and the time is known.
    assert_eq!(scene.vouching.questions(at(999)), []);
    assert_eq!(scene.vouching.due(), Some(at(1000)));
    assert!(!scene.vouching.questions(at(1000)).is_empty());
}

#[test]
fn a_claim_of_nobody_elses_is_forgotten() {
    let mut scene = Scene::new(0);
    let claimed = claim(9, at(0));
    assert_eq!(idle(&claimed, &scene.tables, at(1)), []);
    let receiver = EndpointKey::new(Vid::new(10), mac(9));
    scene.tables.endpoints.insert(receiver, Endpoint::default());
    assert_eq!(idle(&claimed, &scene.tables, at(1)), [key(10, ADDRESS)]);
    scene.tables = DesiredTables::default();
    assert_eq!(idle(&claimed, &scene.tables, at(1)), [key(10, ADDRESS)]);
}

proptest! {
    /// However many there are: no more questions in a second than that, and all are asked in the end.
    #[test]
    fn questions_come_at_a_bounded_rate(number in 1..700u32) {
        let mut scene = Scene::new(0);
        scene.tables.neighbors = (0..number)
            .map(|it| {
                let [.., x, y] = it.to_be_bytes();
                let neighbor = Neighbor { mac: [2, 0, 0, 0, x, y], flags: 0 };
                (NeighborKey::ipv4(Vid::new(10), it.to_be_bytes()), neighbor)
            })
            .collect();
        let nobody = BTreeMap::new();
        let (mut asked, mut now) = (vec![], Duration::ZERO);
        loop {
            let mut tables = scene.tables.clone();
            scene.vouching.judge(&mut tables, &nobody, |_| true, now);
            let Some(due) = scene.vouching.due() else { break };
            prop_assert!(due > now || asked.is_empty() || scene.vouching.is_ripe(now), "{now:?}");
            now = now.max(due);
            asked.push((now, scene.vouching.questions(now).len()));
        }
        let sum: usize = asked.iter().map(|(_, questions)| questions).sum();
        prop_assert_eq!(sum, 2 * number as usize);
        for (start, _) in &asked {
            let within = |(at, _): &&(Duration, usize)| *at >= *start && *at < *start + SECOND;
            let sum: usize = asked.iter().filter(within).map(|(_, questions)| questions).sum();
            prop_assert!(sum <= 400, "{sum}");
        }
    }
}

//! Who makes a VLAN be left alone, case by case.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

use vlanfast::state::{
    desired::desired,
    listeners::Listener::{self, *},
    snapshot::{Ifindex, Kind, Link, Mode, Network, Nsid, Promiscuity},
};
use vlanfast_common::{Mac, Parent, Settings, Vid};

const OWN: Nsid = Nsid::Own;
const INSIDE: Nsid = Nsid::Other(3);
const TRUNK: (Nsid, u32) = (OWN, 2);
const PARENT: (Nsid, u32) = (OWN, 10);
const BRIDGE: Kind = Kind::Macvlan(Mode::Bridge);

fn vid(number: u16) -> Vid {
    Vid::from_tci(number)
}

/// A trunk, index 2, with VLAN 10, index 10; and what a test adds.
struct Lan(Network);

impl Lan {
    fn new() -> Self {
        let mut lan = Self(Network::default());
        lan.add(TRUNK, Kind::Other, None);
        lan.add(PARENT, Kind::Vlan(vid(10)), Some(TRUNK));
        lan
    }

    fn add(
        &mut self,
        (nsid, index): (Nsid, u32),
        kind: Kind,
        lower: Option<(Nsid, u32)>,
    ) -> &mut Link {
        let link = Link {
            name: format!("d{index}").as_str().into(),
            mac: Mac(match kind {
                // As a VLAN device and its trunk have it.
                Kind::Vlan(_) | Kind::Other => [2, 0, 0, 0, 0, 1],
                _ => [2, 0, 0, 0, 0, index as u8],
            }),
            up: true,
            mtu: 1500,
            kind,
            lower: lower.map(|(nsid, index)| (nsid, Ifindex(index))),
            port: false,
            promiscuity: Promiscuity::default(),
        };
        let links = &mut self.0.namespaces.entry(nsid).or_default().links;
        links.entry(Ifindex(index)).insert_entry(link).into_mut()
    }

    fn link(&mut self, (nsid, index): (Nsid, u32)) -> &mut Link {
        let namespace = self.0.namespaces.get_mut(&nsid).unwrap();
        namespace.links.get_mut(&Ifindex(index)).unwrap()
    }

    /// So many keep a device in promiscuous mode, the last of them by hand.
    fn promiscuous(&mut self, place: (Nsid, u32), count: u32, by_hand: bool) {
        self.link(place).promiscuity = Promiscuity { count, by_hand };
    }

    fn parent(&self, number: u16) -> Parent {
        let desired = desired(&self.0, Ifindex(TRUNK.1));
        let vlans = desired.tables.vlans;
        vlans.get(&vid(number)).copied().unwrap_or_default()
    }

    fn unseen(&self) -> u32 {
        desired(&self.0, Ifindex(TRUNK.1)).tables.unseen()
    }

    fn of(&self, number: u16) -> Vec<Listener> {
        Listener::of(self.parent(number)).collect()
    }
}

#[test]
fn a_vlan_with_nothing_but_bridged_macvlans_has_none() {
    let mut lan = Lan::new();
    lan.add((INSIDE, 7), BRIDGE, Some(PARENT));
    lan.add((INSIDE, 8), Kind::Macvlan(Mode::Private), Some(TRUNK));
    assert!(lan.of(0).is_empty() && lan.of(10).is_empty());
    assert_eq!(lan.parent(10).flags, Parent::UP);
}

#[test]
fn the_port_of_a_bridge() {
    let mut lan = Lan::new();
    lan.link(PARENT).port = true;
    lan.promiscuous(PARENT, 1, false);
    // The VLAN device hands it on.
    lan.promiscuous(TRUNK, 1, false);
    assert_eq!(lan.of(10), [Port]);
    assert_eq!(lan.of(0), []);
    lan.link(TRUNK).port = true;
    assert_eq!(lan.of(0), [Port]);
    lan.promiscuous(PARENT, 2, false);
    assert_eq!(lan.of(10), [Port, Promiscuous]);
}

#[test]
fn ipvlan_on_a_parent_or_on_a_macvlan_of_it() {
    let mut lan = Lan::new();
    lan.add((INSIDE, 7), Kind::Ipvlan, Some(TRUNK));
    lan.add((INSIDE, 8), BRIDGE, Some(PARENT));
    assert_eq!((lan.of(0), lan.of(10)), (vec![Ipvlan], vec![]));
    lan.add((Nsid::Other(4), 8), Kind::Ipvlan, Some((INSIDE, 8)));
    assert_eq!(lan.of(10), [Ipvlan]);
}

#[test]
fn a_macvlan_that_takes_whatever_comes() {
    for mode in [Mode::Passthru, Mode::Source] {
        let mut lan = Lan::new();
        lan.add((INSIDE, 7), Kind::Macvlan(mode), Some(PARENT));
        lan.add((OWN, 40), Kind::Macvtap(mode), Some(TRUNK));
        assert_eq!(
            (lan.of(10), lan.of(0)),
            (vec![Greedy], vec![Greedy, Guests])
        );
    }
    let mut lan = Lan::new();
    let passthru = lan.add((INSIDE, 7), Kind::Macvlan(Mode::Passthru), Some(PARENT));
    passthru.promiscuity.count = 1;
    lan.promiscuous(PARENT, 1, false);
    lan.promiscuous(TRUNK, 1, false);
    assert_eq!((lan.of(10), lan.of(0)), (vec![Greedy], vec![]));
}

#[test]
fn a_vlan_device_inside_a_container() {
    let mut lan = Lan::new();
    lan.add((INSIDE, 7), BRIDGE, Some(TRUNK));
    for (index, number) in [(8, 10), (9, 30)] {
        lan.add((INSIDE, index), Kind::Vlan(vid(number)), Some((INSIDE, 7)));
    }
    assert_eq!((lan.of(10), lan.of(30)), (vec![Nested], vec![Nested]));
    assert_eq!((lan.parent(10).ifindex, lan.parent(30).ifindex), (10, 0));
    assert_eq!(lan.of(0), []);
    // On a VLAN it is one tag more, and none of the trunk's.
    lan.add((INSIDE, 17), BRIDGE, Some(PARENT));
    lan.add((INSIDE, 18), Kind::Vlan(vid(40)), Some((INSIDE, 17)));
    assert_eq!(lan.parent(40), Parent::default());
    // The trunk's own, moved.
    lan.add((INSIDE, 50), Kind::Vlan(vid(50)), Some(TRUNK));
    assert_eq!((lan.of(50), lan.parent(50).ifindex), (vec![Nested], 0));
}

#[test]
fn a_capture_is_told_from_what_explains_promiscuous_mode() {
    let mut lan = Lan::new();
    // By hand, as many guides have it.
    lan.promiscuous(TRUNK, 1, true);
    assert_eq!(lan.of(0), []);
    lan.promiscuous(TRUNK, 2, true);
    assert_eq!(lan.of(0), [Promiscuous]);
    // One on the VLAN, which the trunk has to follow.
    lan.promiscuous(PARENT, 1, false);
    assert_eq!((lan.of(10), lan.of(0)), (vec![Promiscuous], vec![]));
    // One in a container, which both have to.
    lan.add((INSIDE, 7), BRIDGE, Some(PARENT));
    lan.promiscuous((INSIDE, 7), 1, false);
    assert_eq!((lan.of(10), lan.of(0)), (vec![], vec![]));
    // What is down asks nothing of the device below.
    lan.link((INSIDE, 7)).up = false;
    assert_eq!((lan.of(10), lan.of(0)), (vec![Promiscuous], vec![]));
}

#[test]
fn a_nic_that_filters_nothing_is_promiscuous_for_its_macvlans() {
    let mut lan = Lan::new();
    lan.promiscuous(TRUNK, 1, false);
    assert_eq!(lan.of(0), [Promiscuous]);
    lan.add((INSIDE, 7), BRIDGE, Some(PARENT));
    assert_eq!((lan.of(0), lan.of(10)), (vec![], vec![]));
    lan.promiscuous(TRUNK, 2, false);
    assert_eq!(lan.of(0), [Promiscuous]);
    // VLAN devices filter, and hand the MACs on.
    lan.promiscuous(PARENT, 1, false);
    assert_eq!((lan.of(0), lan.of(10)), (vec![], vec![Promiscuous]));
    // A device that has nothing to do with it.
    let mut lan = Lan::new();
    lan.promiscuous(TRUNK, 1, false);
    lan.add((OWN, 60), Kind::Other, Some((OWN, 61)));
    lan.add((OWN, 61), Kind::Other, Some((OWN, 60)));
    lan.add((INSIDE, 7), BRIDGE, Some((OWN, 60)));
    assert_eq!(lan.of(0), [Promiscuous]);
}

#[test]
fn guests_have_addresses_that_nobody_sees() {
    let mut lan = Lan::new();
    lan.add((OWN, 40), Kind::Macvtap(Mode::Bridge), Some(PARENT));
    assert_eq!((lan.of(10), lan.of(0)), (vec![Guests], vec![]));
    let bridged = lan.add((INSIDE, 7), BRIDGE, Some(TRUNK));
    bridged.port = true;
    assert_eq!(lan.of(0), [Guests]);
}

#[test]
fn on_the_trunk_itself_they_may_take_frames_of_any_vlan() {
    let mut lan = Lan::new();
    lan.link(PARENT).port = true;
    lan.promiscuous(TRUNK, 2, false);
    assert_eq!(lan.of(0), [Promiscuous]);
    assert_eq!(lan.unseen(), 0);
    lan.link(TRUNK).port = true;
    assert_eq!(lan.unseen(), Settings::VLANS);
    let mut lan = Lan::new();
    lan.add((INSIDE, 7), BRIDGE, Some(TRUNK)).port = true;
    assert_eq!((lan.of(0), lan.unseen()), (vec![Guests], Settings::VLANS));
}

#[test]
fn each_has_a_flag_a_name_and_words_of_its_own() {
    let every = Parent {
        ifindex: 0,
        flags: u32::MAX,
        ..Parent::default()
    };
    let names: Vec<_> = Listener::of(every).map(Listener::name).collect();
    let expected = [
        "port",
        "ipvlan",
        "greedy",
        "nested",
        "promiscuous",
        "guests",
    ];
    assert_eq!(names, expected);
    let up = Parent {
        ifindex: 3,
        flags: Parent::UP,
        ..Parent::default()
    };
    assert_eq!(Listener::of(up).count(), 0);
}

//! Who makes a VLAN be left alone, case by case.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

use vlanfast::state::{
    address_owners::Given,
    desired::desired,
    listeners::{Listener, Listener::*},
    snapshot::{Ifindex, Link, LinkKind, Mode, Nsid, Promiscuity, Receivers, Silence, Snapshot},
};
use vlanfast_common::{Mac, Parent, Settings, Vid};

const OWN: Nsid = Nsid::Own;
const INSIDE: Nsid = Nsid::Other(3);
const TRUNK: (Nsid, u32) = (OWN, 2);
const PARENT: (Nsid, u32) = (OWN, 10);
const BRIDGE: LinkKind = LinkKind::Macvlan(Mode::Bridge);

fn vid(number: u16) -> Vid {
    Vid::new(number)
}

/// A trunk, index 2, with VLAN 10, index 10; and what a test adds.
struct Lan(Snapshot);

impl Lan {
    fn new() -> Self {
        let mut lan = Self(Snapshot::default());
        lan.add(TRUNK, LinkKind::Other, None);
        lan.add(PARENT, LinkKind::Vlan(vid(10)), Some(TRUNK));
        lan
    }

    fn add(
        &mut self,
        (nsid, index): (Nsid, u32),
        kind: LinkKind,
        lower: Option<(Nsid, u32)>,
    ) -> &mut Link {
        let link = Link {
            name: format!("d{index}").as_str().into(),
            mac: Mac(match kind {
                // As a VLAN device and its trunk have it.
                LinkKind::Vlan(_) | LinkKind::Other => [2, 0, 0, 0, 0, 1],
                _ => [2, 0, 0, 0, 0, index as u8],
            }),
            up: true,
            mtu: 1500,
            kind,
            lower: lower.map(|(nsid, index)| (nsid, Ifindex(index))),
            port: false,
            promiscuity: Promiscuity::default(),
            silence: Silence::default(),
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

    /// What the kernel lists for a device of our own namespace.
    fn receivers(&mut self, (_, index): (Nsid, u32)) -> &mut Receivers {
        self.0.receivers.entry(Ifindex(index)).or_default()
    }

    /// The kernel lists a MAC for a device, and for the trunk below.
    fn list(&mut self, place: (Nsid, u32), last: u8) {
        for place in [place, TRUNK] {
            let mac = Mac([2, 0, 0, 0, 0, last]);
            self.receivers(place).unicast.insert(mac);
        }
    }

    fn address(&mut self, (nsid, index): (Nsid, u32), address: &str) {
        let addresses = &mut self.0.namespaces.entry(nsid).or_default().addresses;
        let addresses = addresses.entry(Ifindex(index)).or_default();
        addresses.push(address.parse().unwrap());
    }

    fn parent(&self, number: u16) -> Parent {
        let desired = desired(&self.0, Ifindex(TRUNK.1), &Given::default());
        let vlans = desired.tables.vlans;
        vlans.get(&vid(number)).copied().unwrap_or_default()
    }

    fn unseen(&self) -> u32 {
        desired(&self.0, Ifindex(TRUNK.1), &Given::default())
            .tables
            .unseen()
    }

    fn of(&self, number: u16) -> Vec<Listener> {
        Listener::of(self.parent(number)).collect()
    }
}

#[test]
fn a_vlan_with_nothing_but_bridged_macvlans_has_none() {
    let mut lan = Lan::new();
    lan.add((INSIDE, 7), BRIDGE, Some(PARENT));
    lan.add((INSIDE, 8), LinkKind::Macvlan(Mode::Private), Some(TRUNK));
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
fn ipvlan_on_a_parent_and_not_on_a_macvlan_of_it() {
    let mut lan = Lan::new();
    lan.add((INSIDE, 7), LinkKind::Ipvlan, Some(TRUNK));
    lan.add((INSIDE, 8), BRIDGE, Some(PARENT));
    assert_eq!((lan.of(0), lan.of(10)), (vec![Ipvlan], vec![]));
    // There it is the macvlan that answers, with its own MAC.
    lan.add((Nsid::Other(4), 8), LinkKind::Ipvlan, Some((INSIDE, 8)));
    assert_eq!(lan.of(10), []);
}

#[test]
fn a_macvlan_that_takes_whatever_comes() {
    for (mode, expected) in [(Mode::Passthru, Greedy), (Mode::Source, Source)] {
        let mut lan = Lan::new();
        lan.add((INSIDE, 7), LinkKind::Macvlan(mode), Some(PARENT));
        lan.add((OWN, 40), LinkKind::Macvtap(mode), Some(TRUNK));
        assert_eq!(lan.of(10), [expected]);
        let of_trunk = lan.of(0);
        assert!(of_trunk.contains(&expected) && of_trunk.contains(&Guests));
    }
    // Who takes frames by their sender does not mind to whom they are steered.
    let mut lan = Lan::new();
    lan.add((INSIDE, 7), LinkKind::Macvlan(Mode::Source), Some(PARENT));
    let parent = lan.parent(10);
    assert!(parent.has(Parent::UNSHED));
    assert!(!parent.has(Parent::NO_STEER) && !parent.has(Parent::UNLIMITED));
    let mut lan = Lan::new();
    let passthru = lan.add((INSIDE, 7), LinkKind::Macvlan(Mode::Passthru), Some(PARENT));
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
        lan.add(
            (INSIDE, index),
            LinkKind::Vlan(vid(number)),
            Some((INSIDE, 7)),
        );
    }
    // What is for VLAN 10 goes to the host's own device for it.
    assert_eq!((lan.of(10), lan.of(30)), (vec![], vec![Nested]));
    assert_eq!((lan.parent(10).ifindex, lan.parent(30).ifindex), (10, 0));
    assert_eq!(lan.of(0), []);
    // On a VLAN it is one tag more, and none of the trunk's.
    lan.add((INSIDE, 17), BRIDGE, Some(PARENT));
    lan.add((INSIDE, 18), LinkKind::Vlan(vid(40)), Some((INSIDE, 17)));
    assert_eq!(lan.parent(40), Parent::default());
    // The trunk's own, moved.
    lan.add((INSIDE, 50), LinkKind::Vlan(vid(50)), Some(TRUNK));
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
    // So it is for those that nobody shows.
    let mut hidden = Lan::new();
    hidden.promiscuous(TRUNK, 1, false);
    hidden.list(PARENT, 9);
    assert_eq!((hidden.of(0), hidden.of(10)), (vec![], vec![Unseen]));
    // VLAN devices filter, and hand the MACs on.
    lan.promiscuous(PARENT, 1, false);
    assert_eq!((lan.of(0), lan.of(10)), (vec![], vec![Promiscuous]));
    // A device that has nothing to do with it.
    let mut lan = Lan::new();
    lan.promiscuous(TRUNK, 1, false);
    lan.add((OWN, 60), LinkKind::Other, Some((OWN, 61)));
    lan.add((OWN, 61), LinkKind::Other, Some((OWN, 60)));
    lan.add((INSIDE, 7), BRIDGE, Some((OWN, 60)));
    assert_eq!(lan.of(0), [Promiscuous]);
}

#[test]
fn guests_have_addresses_that_nobody_sees() {
    let mut lan = Lan::new();
    lan.add((OWN, 40), LinkKind::Macvtap(Mode::Bridge), Some(PARENT));
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
fn a_mac_that_no_device_explains_is_somebody_unseen() {
    let mut lan = Lan::new();
    lan.add((INSIDE, 7), BRIDGE, Some(PARENT));
    lan.list(PARENT, 7);
    assert_eq!((lan.of(10), lan.of(0)), (vec![], vec![]));
    // What is hidden on the VLAN is on the trunk's list as well, and explained there.
    lan.list(PARENT, 9);
    assert_eq!((lan.of(10), lan.of(0)), (vec![Unseen], vec![]));
    let parent = lan.parent(10);
    assert!(parent.has(Parent::UNSHED) && parent.has(Parent::UNLIMITED));
    assert!(
        !parent.has(Parent::NO_STEER),
        "whoever is seen is steered to"
    );
    lan.add((Nsid::Other(4), 9), BRIDGE, Some(PARENT));
    assert_eq!(lan.of(10), []);
    // One that is down takes nothing: it is somebody else.
    lan.link((Nsid::Other(4), 9)).up = false;
    assert_eq!(lan.of(10), [Unseen]);
    // On the trunk itself, it may take frames of any VLAN.
    let mut lan = Lan::new();
    lan.list(TRUNK, 9);
    assert_eq!((lan.of(0), lan.of(10)), (vec![Unseen], vec![]));
    assert_eq!(lan.unseen(), Settings::VLANS);
}

#[test]
fn devices_on_devices_explain_their_macs() {
    let mut lan = Lan::new();
    // A VLAN device with a MAC of its own, and a macvlan on a stacked one.
    lan.link(PARENT).mac = Mac([2, 0, 0, 0, 0, 10]);
    lan.list(TRUNK, 10);
    lan.add((OWN, 30), LinkKind::Vlan(vid(30)), Some(PARENT));
    lan.add((INSIDE, 7), BRIDGE, Some((OWN, 30)));
    lan.list(PARENT, 7);
    assert_eq!((lan.of(0), lan.of(10)), (vec![], vec![]));
    // Another kind of device on top may take what it takes by itself (macsec).
    lan.add((OWN, 40), LinkKind::Other, Some(PARENT)).mac = Mac([2, 0, 0, 0, 0, 40]);
    lan.list(PARENT, 40);
    assert_eq!((lan.of(0), lan.of(10)), (vec![], vec![Unseen]));
    // A bridge writes down what is behind its other ports.
    lan.link(PARENT).port = true;
    assert_eq!(lan.of(10), [Port]);
}

#[test]
fn a_solicited_node_group_without_its_address_is_somebody_unseen() {
    let mut lan = Lan::new();
    lan.add((INSIDE, 7), BRIDGE, Some(PARENT));
    lan.address((INSIDE, 7), "2001:db8::aa:bbcc");
    lan.address(PARENT, "2001:db8::12:3456");
    lan.address(PARENT, "10.0.0.1");
    // Its own, the host's; and a router's for the prefix as a whole, of whatever length.
    for group in [0xaa_bbcc, 0x12_3456, 0, 0x12_0000, 0x12_3400] {
        lan.receivers(PARENT).solicited.insert(group);
        assert_eq!(lan.of(10), [], "{group:x}");
    }
    lan.receivers(PARENT).solicited.insert(0x12_3458);
    assert_eq!(lan.of(10), [Unseen]);
    // On the trunk nobody has these addresses, but the VLAN's list has the groups.
    let listed = lan.receivers(PARENT).solicited.clone();
    lan.receivers(TRUNK).solicited = listed;
    assert_eq!(lan.of(0), []);
}

#[test]
fn filters_and_sockets_on_the_trunk_stand_before_every_vlan() {
    type Set = fn(&mut Receivers);
    let filters: Set = |it| it.filters = true;
    let sockets: Set = |it| it.sockets = true;
    for (set, expected) in [(filters, Filters), (sockets, Sockets)] {
        let mut lan = Lan::new();
        lan.add((OWN, 20), LinkKind::Vlan(vid(20)), Some(TRUNK));
        set(lan.receivers(PARENT));
        assert_eq!((lan.of(0), lan.of(20)), (vec![], vec![]));
        assert_eq!((lan.of(10), lan.unseen()), (vec![expected], 0));
        assert!(lan.parent(10).has(Parent::NO_STEER));
        set(lan.receivers(TRUNK));
        for number in [0, 10, 20] {
            assert_eq!(lan.of(number), [expected]);
        }
        assert_eq!(lan.unseen(), Settings::VLANS);
    }
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
        "filters",
        "sockets",
        "unseen",
        "source",
    ];
    assert_eq!(names, expected);
    let up = Parent {
        ifindex: 3,
        flags: Parent::UP,
        ..Parent::default()
    };
    assert_eq!(Listener::of(up).count(), 0);
}

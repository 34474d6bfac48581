//! Tests of the reasons to back off from a VLAN, one by one.
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

/// A trunk with index 2, VLAN 10 with index 10, and the devices that a test adds.
struct OneVlan(Snapshot);

impl OneVlan {
    fn new() -> Self {
        let mut topology = Self(Snapshot::default());
        topology.add(TRUNK, LinkKind::Other, None);
        topology.add(PARENT, LinkKind::Vlan(vid(10)), Some(TRUNK));
        topology
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
                // A VLAN device has the MAC of its trunk.
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

    /// Sets how many users keep a device in promiscuous mode, and whether one of them is `ip link set promisc on`.
    fn promiscuous(&mut self, device: (Nsid, u32), count: u32, by_hand: bool) {
        self.link(device).promiscuity = Promiscuity { count, by_hand };
    }

    /// The receivers of a device of our own namespace, as listed by the kernel.
    fn receivers(&mut self, (_, index): (Nsid, u32)) -> &mut Receivers {
        self.0.receivers.entry(Ifindex(index)).or_default()
    }

    /// Adds a MAC to the lists of a device and of the trunk below it.
    fn list(&mut self, device: (Nsid, u32), last: u8) {
        for device in [device, TRUNK] {
            let mac = Mac([2, 0, 0, 0, 0, last]);
            self.receivers(device).unicast.insert(mac);
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
    let mut topology = OneVlan::new();
    topology.add((INSIDE, 7), BRIDGE, Some(PARENT));
    topology.add((INSIDE, 8), LinkKind::Macvlan(Mode::Private), Some(TRUNK));
    assert!(topology.of(0).is_empty() && topology.of(10).is_empty());
    assert_eq!(topology.parent(10).flags, Parent::UP);
}

#[test]
fn the_port_of_a_bridge() {
    let mut topology = OneVlan::new();
    topology.link(PARENT).port = true;
    topology.promiscuous(PARENT, 1, false);
    // The VLAN device passes promiscuous mode on to the trunk.
    topology.promiscuous(TRUNK, 1, false);
    assert_eq!(topology.of(10), [Port]);
    assert_eq!(topology.of(0), []);
    topology.link(TRUNK).port = true;
    assert_eq!(topology.of(0), [Port]);
    topology.promiscuous(PARENT, 2, false);
    assert_eq!(topology.of(10), [Port, Promiscuous]);
}

#[test]
fn ipvlan_on_a_parent_and_not_on_a_macvlan_of_it() {
    let mut topology = OneVlan::new();
    topology.add((INSIDE, 7), LinkKind::Ipvlan, Some(TRUNK));
    topology.add((INSIDE, 8), BRIDGE, Some(PARENT));
    assert_eq!((topology.of(0), topology.of(10)), (vec![Ipvlan], vec![]));
    // On a macvlan, the macvlan answers with its own MAC.
    topology.add((Nsid::Other(4), 8), LinkKind::Ipvlan, Some((INSIDE, 8)));
    assert_eq!(topology.of(10), []);
}

#[test]
fn a_macvlan_in_mode_passthru_or_source() {
    for (mode, expected) in [(Mode::Passthru, CatchAll), (Mode::Source, Source)] {
        let mut topology = OneVlan::new();
        topology.add((INSIDE, 7), LinkKind::Macvlan(mode), Some(PARENT));
        topology.add((OWN, 40), LinkKind::Macvtap(mode), Some(TRUNK));
        assert_eq!(topology.of(10), [expected]);
        let of_trunk = topology.of(0);
        assert!(of_trunk.contains(&expected) && of_trunk.contains(&Guests));
    }
    // A macvlan in mode source selects by the sender, so steering does not affect it.
    let mut topology = OneVlan::new();
    topology.add((INSIDE, 7), LinkKind::Macvlan(Mode::Source), Some(PARENT));
    let parent = topology.parent(10);
    assert!(parent.has(Parent::UNSHED));
    assert!(!parent.has(Parent::NO_STEER) && !parent.has(Parent::UNLIMITED));
    let mut topology = OneVlan::new();
    let passthru = topology.add((INSIDE, 7), LinkKind::Macvlan(Mode::Passthru), Some(PARENT));
    passthru.promiscuity.count = 1;
    topology.promiscuous(PARENT, 1, false);
    topology.promiscuous(TRUNK, 1, false);
    assert_eq!((topology.of(10), topology.of(0)), (vec![CatchAll], vec![]));
}

#[test]
fn a_vlan_device_inside_a_container() {
    let mut topology = OneVlan::new();
    topology.add((INSIDE, 7), BRIDGE, Some(TRUNK));
    for (index, number) in [(8, 10), (9, 30)] {
        topology.add(
            (INSIDE, index),
            LinkKind::Vlan(vid(number)),
            Some((INSIDE, 7)),
        );
    }
    // Frames for VLAN 10 go to the host's own VLAN device.
    assert_eq!((topology.of(10), topology.of(30)), (vec![], vec![Nested]));
    assert_eq!(
        (topology.parent(10).ifindex, topology.parent(30).ifindex),
        (10, 0)
    );
    assert_eq!(topology.of(0), []);
    // On VLAN 10, the device adds a second tag, so its VID is not one of the trunk's.
    topology.add((INSIDE, 17), BRIDGE, Some(PARENT));
    topology.add((INSIDE, 18), LinkKind::Vlan(vid(40)), Some((INSIDE, 17)));
    assert_eq!(topology.parent(40), Parent::default());
    // A VLAN device of the trunk was moved into the container.
    topology.add((INSIDE, 50), LinkKind::Vlan(vid(50)), Some(TRUNK));
    assert_eq!(
        (topology.of(50), topology.parent(50).ifindex),
        (vec![Nested], 0)
    );
}

#[test]
fn a_capture_is_distinguished_from_other_causes_of_promiscuous_mode() {
    let mut topology = OneVlan::new();
    // Many guides tell users to switch promiscuous mode on by hand.
    topology.promiscuous(TRUNK, 1, true);
    assert_eq!(topology.of(0), []);
    topology.promiscuous(TRUNK, 2, true);
    assert_eq!(topology.of(0), [Promiscuous]);
    // A capture on the VLAN device affects the trunk as well.
    topology.promiscuous(PARENT, 1, false);
    assert_eq!(
        (topology.of(10), topology.of(0)),
        (vec![Promiscuous], vec![])
    );
    // A capture in a container affects both.
    topology.add((INSIDE, 7), BRIDGE, Some(PARENT));
    topology.promiscuous((INSIDE, 7), 1, false);
    assert_eq!((topology.of(10), topology.of(0)), (vec![], vec![]));
    // A device that is down needs nothing from its lower device.
    topology.link((INSIDE, 7)).up = false;
    assert_eq!(
        (topology.of(10), topology.of(0)),
        (vec![Promiscuous], vec![])
    );
}

#[test]
fn a_nic_that_filters_nothing_is_promiscuous_for_its_macvlans() {
    let mut topology = OneVlan::new();
    topology.promiscuous(TRUNK, 1, false);
    assert_eq!(topology.of(0), [Promiscuous]);
    topology.add((INSIDE, 7), BRIDGE, Some(PARENT));
    assert_eq!((topology.of(0), topology.of(10)), (vec![], vec![]));
    topology.promiscuous(TRUNK, 2, false);
    assert_eq!(topology.of(0), [Promiscuous]);
    // This also applies to macvlans in namespaces that are not visible.
    let mut hidden = OneVlan::new();
    hidden.promiscuous(TRUNK, 1, false);
    hidden.list(PARENT, 9);
    assert_eq!((hidden.of(0), hidden.of(10)), (vec![], vec![Unseen]));
    // VLAN devices can filter, and pass the MACs on to the trunk.
    topology.promiscuous(PARENT, 1, false);
    assert_eq!(
        (topology.of(0), topology.of(10)),
        (vec![], vec![Promiscuous])
    );
    // Unrelated devices do not explain it.
    let mut topology = OneVlan::new();
    topology.promiscuous(TRUNK, 1, false);
    topology.add((OWN, 60), LinkKind::Other, Some((OWN, 61)));
    topology.add((OWN, 61), LinkKind::Other, Some((OWN, 60)));
    topology.add((INSIDE, 7), BRIDGE, Some((OWN, 60)));
    assert_eq!(topology.of(0), [Promiscuous]);
}

#[test]
fn the_addresses_of_guests_are_not_visible() {
    let mut topology = OneVlan::new();
    topology.add((OWN, 40), LinkKind::Macvtap(Mode::Bridge), Some(PARENT));
    assert_eq!((topology.of(10), topology.of(0)), (vec![Guests], vec![]));
    let bridged = topology.add((INSIDE, 7), BRIDGE, Some(TRUNK));
    bridged.port = true;
    assert_eq!(topology.of(0), [Guests]);
}

#[test]
fn listeners_on_the_trunk_may_receive_frames_of_any_vlan() {
    let mut topology = OneVlan::new();
    topology.link(PARENT).port = true;
    topology.promiscuous(TRUNK, 2, false);
    assert_eq!(topology.of(0), [Promiscuous]);
    assert_eq!(topology.unseen(), 0);
    topology.link(TRUNK).port = true;
    assert_eq!(topology.unseen(), Settings::VLANS);
    let mut topology = OneVlan::new();
    topology.add((INSIDE, 7), BRIDGE, Some(TRUNK)).port = true;
    assert_eq!(
        (topology.of(0), topology.unseen()),
        (vec![Guests], Settings::VLANS)
    );
}

#[test]
fn a_mac_that_no_device_explains_is_a_hidden_receiver() {
    let mut topology = OneVlan::new();
    topology.add((INSIDE, 7), BRIDGE, Some(PARENT));
    topology.list(PARENT, 7);
    assert_eq!((topology.of(10), topology.of(0)), (vec![], vec![]));
    // A hidden receiver on the VLAN is on the trunk's list as well, where the VLAN explains it.
    topology.list(PARENT, 9);
    assert_eq!((topology.of(10), topology.of(0)), (vec![Unseen], vec![]));
    let parent = topology.parent(10);
    assert!(parent.has(Parent::UNSHED) && parent.has(Parent::UNLIMITED));
    assert!(
        !parent.has(Parent::NO_STEER),
        "frames are still steered to visible endpoints"
    );
    topology.add((Nsid::Other(4), 9), BRIDGE, Some(PARENT));
    assert_eq!(topology.of(10), []);
    // A device that is down receives nothing, so the MAC belongs to another receiver.
    topology.link((Nsid::Other(4), 9)).up = false;
    assert_eq!(topology.of(10), [Unseen]);
    // On the trunk itself, the receiver may receive frames of any VLAN.
    let mut topology = OneVlan::new();
    topology.list(TRUNK, 9);
    assert_eq!((topology.of(0), topology.of(10)), (vec![Unseen], vec![]));
    assert_eq!(topology.unseen(), Settings::VLANS);
}

#[test]
fn devices_on_devices_explain_their_macs() {
    let mut topology = OneVlan::new();
    // A VLAN device has a MAC of its own, and a macvlan is on a stacked VLAN device.
    topology.link(PARENT).mac = Mac([2, 0, 0, 0, 0, 10]);
    topology.list(TRUNK, 10);
    topology.add((OWN, 30), LinkKind::Vlan(vid(30)), Some(PARENT));
    topology.add((INSIDE, 7), BRIDGE, Some((OWN, 30)));
    topology.list(PARENT, 7);
    assert_eq!((topology.of(0), topology.of(10)), (vec![], vec![]));
    // Another kind of upper device, such as macsec, does not explain a MAC.
    topology.add((OWN, 40), LinkKind::Other, Some(PARENT)).mac = Mac([2, 0, 0, 0, 0, 40]);
    topology.list(PARENT, 40);
    assert_eq!((topology.of(0), topology.of(10)), (vec![], vec![Unseen]));
    // A bridge adds the MACs behind its other ports.
    topology.link(PARENT).port = true;
    assert_eq!(topology.of(10), [Port]);
}

#[test]
fn a_solicited_node_group_without_its_address_is_a_hidden_receiver() {
    let mut topology = OneVlan::new();
    topology.add((INSIDE, 7), BRIDGE, Some(PARENT));
    topology.address((INSIDE, 7), "2001:db8::aa:bbcc");
    topology.address(PARENT, "2001:db8::12:3456");
    topology.address(PARENT, "10.0.0.1");
    // The groups of the macvlan's and the host's addresses are explained, and those of a router for a prefix of any
    // length.
    for group in [0xaa_bbcc, 0x12_3456, 0, 0x12_0000, 0x12_3400] {
        topology.receivers(PARENT).solicited.insert(group);
        assert_eq!(topology.of(10), [], "{group:x}");
    }
    topology.receivers(PARENT).solicited.insert(0x12_3458);
    assert_eq!(topology.of(10), [Unseen]);
    // No device on the trunk itself has these addresses, but the VLAN device's list has the groups.
    let listed = topology.receivers(PARENT).solicited.clone();
    topology.receivers(TRUNK).solicited = listed;
    assert_eq!(topology.of(0), []);
}

#[test]
fn filters_and_sockets_on_the_trunk_affect_every_vlan() {
    type Set = fn(&mut Receivers);
    let filters: Set = |it| it.filters = true;
    let sockets: Set = |it| it.sockets = true;
    for (set, expected) in [(filters, Filters), (sockets, Sockets)] {
        let mut topology = OneVlan::new();
        topology.add((OWN, 20), LinkKind::Vlan(vid(20)), Some(TRUNK));
        set(topology.receivers(PARENT));
        assert_eq!((topology.of(0), topology.of(20)), (vec![], vec![]));
        assert_eq!((topology.of(10), topology.unseen()), (vec![expected], 0));
        assert!(topology.parent(10).has(Parent::NO_STEER));
        set(topology.receivers(TRUNK));
        for number in [0, 10, 20] {
            assert_eq!(topology.of(number), [expected]);
        }
        assert_eq!(topology.unseen(), Settings::VLANS);
    }
}

#[test]
fn each_listener_has_a_flag_and_a_name() {
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

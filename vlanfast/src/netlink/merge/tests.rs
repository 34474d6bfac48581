use std::collections::BTreeMap;

use vlanfast_common::Mac;

use crate::{
    netlink::merge::*,
    state::snapshot::{Link, LinkKind, Promiscuity, Silence},
};

fn link(name: &str) -> Link {
    Link {
        name: name.into(),
        mac: Mac::default(),
        up: true,
        mtu: 1500,
        kind: LinkKind::Other,
        lower: None,
        port: false,
        promiscuity: Promiscuity::default(),
        silence: Silence::default(),
    }
}

/// Builds devices 1 to 3, each with an address that ends in its number.
fn namespace(devices: &[u32]) -> Namespace {
    let address = |device: &u32| IpAddr::from([10, 0, 0, *device as u8]);
    Namespace {
        links: BTreeMap::from_iter(devices.iter().map(|it| (Ifindex(*it), link("old")))),
        addresses: BTreeMap::from_iter(devices.iter().map(|it| (Ifindex(*it), vec![address(it)]))),
    }
}

fn read(devices: &[u32]) -> NamespaceDump {
    NamespaceDump {
        namespace: namespace(devices),
        ..NamespaceDump::default()
    }
}

fn of(ifindex: u32) -> Missing {
    let mut missing = Missing::default();
    missing.record(Undecodable {
        ifindex: Some(Ifindex(ifindex)),
        why: "it is too short",
    });
    missing
}

fn anything() -> Missing {
    let mut missing = Missing::default();
    missing.record_answer(false);
    missing
}

fn devices(namespace: &Namespace) -> Vec<u32> {
    assert!(namespace.links.keys().eq(namespace.addresses.keys()));
    namespace.links.keys().map(|index| index.0).collect()
}

#[test]
fn only_a_complete_read_shows_which_devices_are_gone() {
    let old = namespace(&[1, 2, 3]);
    assert_eq!(devices(&read(&[1]).merge_into(Some(&old))), [1]);
    let mut one = read(&[1]);
    one.links = of(3);
    assert!(!one.is_whole());
    assert_eq!(devices(&one.merge_into(Some(&old))), [1, 3]);
    let mut torn = read(&[1, 4]);
    torn.links = anything();
    assert!(!torn.is_whole());
    assert_eq!(devices(&torn.merge_into(Some(&old))), [1, 2, 3, 4]);
    // Nothing was known before.
    let mut first = read(&[1]);
    first.links = of(3);
    assert_eq!(devices(&first.merge_into(None)), [1]);
}

#[test]
fn addresses_stay_where_some_could_not_be_read() {
    let old = namespace(&[1, 2]);
    let new: IpAddr = [10, 0, 0, 9].into();
    let with = |missing: Missing| {
        let mut read = read(&[1, 2]);
        read.namespace.addresses.insert(Ifindex(1), vec![new]);
        read.namespace.addresses.insert(Ifindex(2), vec![]);
        read.addresses = missing;
        let now = read.merge_into(Some(&old));
        [1, 2].map(|index| now.addresses[&Ifindex(index)].clone())
    };
    let [first, second] = [1, 2].map(|it| IpAddr::from([10, 0, 0, it]));
    assert_eq!(with(Missing::default()), [vec![new], vec![]]);
    assert_eq!(with(of(1)), [vec![new, first], vec![]]);
    assert_eq!(with(anything()), [vec![new, first], vec![second]]);
}

#[test]
fn a_message_of_another_type_is_reported() {
    let message = |kind| Message {
        kind,
        flags: 0,
        number: 1,
        body: b"",
    };
    let mut read = NamespaceDump::default();
    read.link(Nsid::Own, message(libc::RTM_NEWADDR), Nsid::Other);
    read.address(message(libc::RTM_NEWLINK));
    assert!(read.links.anything && read.addresses.anything);
}

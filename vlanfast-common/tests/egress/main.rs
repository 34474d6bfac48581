//! What holds for every frame that leaves, whatever is in the tables. The frames are built from what they say, and the tables
//! answer by key.

mod frames;
mod own;
mod two_vlans;

use std::collections::BTreeMap;

use frames::{Message, Rest, Sent, frames};
use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
use two_vlans::{LINK_LOCAL, Role, TwoVlans, any_two_vlans, mac};
use vlanfast_common::{
    Direction, Headers, Mac, Neighbor, Parent, Verdict, classify, decides, is_plain, parse,
};

fn decide(sent: &Sent, vlans: &TwoVlans) -> Verdict {
    let bytes = sent.bytes();
    let frame = sent.frame(&bytes);
    classify(&frame, &parse(&frame), Direction::Tx, vlans)
}

/// The address that a group frame asks for, and its version.
fn resolve_target(sent: &Sent) -> Option<(u16, u8)> {
    match sent.message {
        Message::Arp {
            is_request: true,
            sender,
            target,
        } if sender != target => Some((4, target)),
        Message::Solicitation { target } => Some((6, target)),
        _ => None,
    }
}

/// The address that a message says its sender has: its version and number, and the station of the MAC.
const fn says(sent: &Sent) -> Option<(u16, u8, u8)> {
    match sent.message {
        Message::Arp { sender, .. } => Some((4, sender, sender)),
        Message::Solicitation { .. } => Some((6, 0, sent.source)),
        Message::Advertisement { target } => Some((6, target, sent.source)),
        Message::Dhcp(_) | Message::Packet(_) => None,
    }
}

/// The station that has an address for sure.
fn owner(vlans: &TwoVlans, address: (u16, u16, u8)) -> Option<u8> {
    let (owner, flags) = *vlans.owners.get(&address)?;
    let is_claimed = vlans
        .claims
        .get(&address)
        .is_some_and(|claimant| !vlans.stations.contains_key(&(address.0, *claimant)));
    let is_others = is_claimed || flags & (Neighbor::UNSURE | Neighbor::FOREIGN) != 0;
    let is_sure = flags & (Neighbor::CONFLICT | Neighbor::DOWN) == 0
        && (!is_others || flags & Neighbor::ASSIGNED != 0);
    is_sure.then_some(owner)
}

/// Whether a known sender may say what he says.
fn is_his(sent: &Sent, vlans: &TwoVlans) -> bool {
    let Some((version, number, mac)) = says(sent) else {
        return true;
    };
    let address = (sent.vid, version, number);
    let sender = vlans.stations[&(sent.vid, sent.source)];
    match sender.role.is_of_the_host() {
        false => owner(vlans, address) == Some(sent.source) && mac == sent.source,
        true => vlans.owners.get(&address).is_none_or(|(owner, _)| {
            let station = vlans.stations.get(&(sent.vid, *owner));
            station.is_some_and(|station| station.role.is_of_the_host())
        }),
    }
}

/// The tag that a frame has is in metadata, if it has one.
fn is_the_hosts_tag(sent: &Sent) -> bool {
    let bytes = sent.bytes();
    parse(&sent.frame(&bytes)).network == Headers::ETHERNET
}

fn is_announcement(message: &Message) -> bool {
    match *message {
        Message::Arp { sender, target, .. } => sender == target,
        Message::Advertisement { .. } => true,
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn what_leaves_is_passed_or_for_this_host(sent in frames(), vlans in any_two_vlans()) {
        let verdict = decide(&sent, &vlans);
        let is_allowed = match verdict {
            Verdict::Pass => true,
            Verdict::Reflect { .. } | Verdict::CloneToLocal { .. } => vlans.policy.host_access == 1,
            Verdict::Shortcut { .. } => vlans.policy.shortcut == 1,
            _ => false,
        };
        prop_assert!(is_allowed, "{verdict:?}");
        prop_assert!(verdict == Verdict::Pass || vlans.is_alive(), "{verdict:?} without a heartbeat");
        prop_assert_eq!(Verdict::from_bits(verdict.to_bits()), verdict);
        let bytes = sent.bytes();
        let headers = parse(&sent.frame(&bytes));
        prop_assert_eq!(Headers::from_bits(headers.to_bits()), headers);
    }

    /// The programs ask the parts of `classify` one by one, and leave out those that have no say.
    #[test]
    fn the_parts_say_what_the_whole_says(sent in frames(), vlans in any_two_vlans()) {
        let bytes = sent.bytes();
        let frame = sent.frame(&bytes);
        let headers = parse(&frame);
        let shortcut = vlanfast_common::shortcut(&frame, &headers, Direction::Tx, &vlans);
        let decided = vlanfast_common::decide(&frame, &headers, Direction::Tx, &vlans);
        prop_assert!(decides(Direction::Tx, &vlans) || decided == Verdict::Pass, "{decided:?}");
        prop_assert!(!is_plain(&frame, &headers, Direction::Tx, &vlans) || decided == Verdict::Pass);
        let parts = match shortcut {
            Verdict::Pass => decided,
            shortcut => shortcut,
        };
        prop_assert_eq!(parts, decide(&sent, &vlans));
    }

    #[test]
    fn what_is_reflected_goes_from_one_side_to_the_other(
        sent in frames(), vlans in any_two_vlans(),
    ) {
        let Verdict::Reflect { mac: to } = decide(&sent, &vlans) else {
            return Ok(());
        };
        prop_assert!(!sent.is_for_a_group(), "what is for a group goes to the wire as well");
        prop_assert!(is_the_hosts_tag(&sent) && is_his(&sent, &vlans));
        prop_assert_eq!(to, across(&sent, &vlans, sent.destination()[5])?);
    }

    #[test]
    fn what_is_copied_asks_or_announces(sent in frames(), vlans in any_two_vlans()) {
        let Verdict::CloneToLocal { mac: to } = decide(&sent, &vlans) else {
            return Ok(());
        };
        let parent = vlans.parents[&sent.vid];
        prop_assert!(parent.ifindex != 0);
        prop_assert!(parent.has(Parent::UP) && parent.has(Parent::HOST_ACCESS));
        prop_assert!(sent.is_for_a_group() && is_the_hosts_tag(&sent));
        if let Some((version, target)) = resolve_target(&sent) {
            let receiver = owner(&vlans, (sent.vid, version, target)).expect("an owner for sure");
            prop_assert!(is_his(&sent, &vlans));
            prop_assert_eq!(to, across(&sent, &vlans, receiver)?);
            return Ok(());
        }
        prop_assert!(is_announcement(&sent.message));
        let from = match vlans.stations.get(&(sent.vid, sent.source)) {
            Some(from) => {
                prop_assert!(!from.has_twin && is_his(&sent, &vlans));
                from
            }
            // The owner has another MAC since.
            None => {
                let (version, number, _) = says(&sent).expect("it announces");
                let address = (sent.vid, version, number);
                let (owned_by, _) = vlans.owners[&address];
                let station = &vlans.stations[&(sent.vid, owned_by)];
                let is_sure = owner(&vlans, address).is_some();
                prop_assert!(is_sure || matches!(station.role, Role::Host));
                station
            }
        };
        let expected = match from.role.is_of_the_host() {
            true => sent.destination(),
            false => parent.mac,
        };
        prop_assert_eq!(to, Mac(expected));
    }

    #[test]
    fn what_takes_the_shortcut_would_be_forwarded_there_and_back(
        sent in frames(), vlans in any_two_vlans(),
    ) {
        let Verdict::Shortcut { vid, mac: to } = decide(&sent, &vlans) else {
            return Ok(());
        };
        let Message::Packet(packet) = &sent.message else {
            panic!("no packet: {sent:?}");
        };
        prop_assert!(!sent.is_for_a_group());
        prop_assert!(!vlans.stations.contains_key(&(sent.vid, sent.destination()[5])));
        prop_assert!(packet.hops > 1 && matches!(packet.rest, Rest::Plain(_)));
        prop_assert!(packet.from != LINK_LOCAL);
        prop_assert!(is_the_hosts_tag(&sent));
        let from = vlans.parents[&sent.vid];
        prop_assert!(!from.has(Parent::PROGRAM), "that device has decided");
        let parent = vlans.parents[&vid.get()];
        prop_assert!(parent.ifindex != 0 && parent.has(Parent::UP));
        prop_assert!(sent.packet_length() <= parent.mtu.into());
        let there = (sent.vid, packet.version, packet.to);
        prop_assert_eq!(vlans.routes[&there], (to.0[5], vid.get()));
        let back = (vid.get(), packet.version, packet.from);
        prop_assert_eq!(vlans.routes[&back], (sent.source, sent.vid));
        prop_assert!(!vlans.lacks_endpoints());
    }
}

/// The MAC by which a frame reaches a station on the other side.
fn across(sent: &Sent, vlans: &TwoVlans, receiver: u8) -> Result<Mac, TestCaseError> {
    let parent = vlans.parents[&sent.vid];
    prop_assert!(parent.ifindex != 0);
    prop_assert!(parent.has(Parent::UP) && parent.has(Parent::HOST_ACCESS));
    let from = vlans.stations[&(sent.vid, sent.source)];
    let taken_by = vlans.stations[&(sent.vid, receiver)];
    prop_assert!(!from.has_twin && !taken_by.has_twin && !taken_by.is_silent);
    prop_assert!(from.role.is_of_the_host() != taken_by.role.is_of_the_host());
    Ok(Mac(match taken_by.role {
        Role::Host => parent.mac,
        _ => mac(receiver),
    }))
}

/// Every kind of frame has each verdict that it can have.
#[test]
fn the_frames_of_the_property_tests_are_decided_over() {
    let mut runner = TestRunner::deterministic();
    let mut seen = BTreeMap::<String, u32>::new();
    for _ in 0..8192 {
        let case = (frames(), any_two_vlans()).new_tree(&mut runner).unwrap();
        let (sent, vlans) = case.current();
        let verdict = match decide(&sent, &vlans) {
            Verdict::Pass => continue,
            Verdict::Reflect { .. } => "reflect",
            Verdict::CloneToLocal { .. } => "copy",
            Verdict::Shortcut { .. } => "shortcut",
            other => panic!("{other:?}"),
        };
        let cast = if sent.is_for_a_group() {
            "group"
        } else {
            "one"
        };
        let name = format!("{verdict}, {}, {cast}", sent.message.name());
        *seen.entry(name).or_default() += 1;
    }
    for name in [
        "reflect, ARP, one",
        "reflect, advertisement, one",
        "copy, solicitation, group",
        "reflect, IPv4, one",
        "reflect, IPv6, one",
        "copy, ARP, group",
        "copy, advertisement, group",
        "shortcut, IPv4, one",
        "shortcut, IPv6, one",
    ] {
        let count = seen.get(name).copied().unwrap_or_default();
        assert!(count >= 5, "{name}: {count} of {seen:?}");
    }
}

//! What holds for any frame that leaves, whoever is there: frames of which it is known what they say, and tables
//! that answer by key.

mod frames;
mod lan;
mod own;

use std::collections::BTreeMap;

use frames::{Message, Rest, Sent, frames};
use lan::{LINK_LOCAL, Lan, Role, lans, mac};
use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
use vlanfast_common::{
    Direction, Headers, Mac, Neighbor, Parent, Verdict, classify, decides, is_plain, parse,
};

fn decide(sent: &Sent, lan: &Lan) -> Verdict {
    let bytes = sent.bytes();
    let frame = sent.frame(&bytes);
    classify(&frame, &parse(&frame), Direction::Tx, lan)
}

/// The address that a group frame asks for, and its version.
fn sought(sent: &Sent) -> Option<(u16, u8)> {
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
    fn what_leaves_is_passed_or_for_this_host(sent in frames(), lan in lans()) {
        let verdict = decide(&sent, &lan);
        let is_allowed = match verdict {
            Verdict::Pass => true,
            Verdict::Reflect { .. } | Verdict::Copy { .. } => lan.policy.host_access == 1,
            Verdict::Shortcut { .. } => lan.policy.shortcut == 1,
            _ => false,
        };
        prop_assert!(is_allowed, "{verdict:?}");
        prop_assert!(verdict == Verdict::Pass || lan.is_alive(), "{verdict:?} without a heartbeat");
        prop_assert_eq!(Verdict::from_bits(verdict.to_bits()), verdict);
        let bytes = sent.bytes();
        let headers = parse(&sent.frame(&bytes));
        prop_assert_eq!(Headers::from_bits(headers.to_bits()), headers);
    }

    /// The programs ask the parts of `classify` one by one, and leave out those that have no say.
    #[test]
    fn the_parts_say_what_the_whole_says(sent in frames(), lan in lans()) {
        let bytes = sent.bytes();
        let frame = sent.frame(&bytes);
        let headers = parse(&frame);
        let shortcut = vlanfast_common::shortcut(&frame, &headers, Direction::Tx, &lan);
        let decided = vlanfast_common::decide(&frame, &headers, Direction::Tx, &lan);
        prop_assert!(decides(Direction::Tx, &lan) || decided == Verdict::Pass, "{decided:?}");
        prop_assert!(!is_plain(&headers, Direction::Tx, &lan) || decided == Verdict::Pass);
        let parts = match shortcut {
            Verdict::Pass => decided,
            shortcut => shortcut,
        };
        prop_assert_eq!(parts, decide(&sent, &lan));
    }

    #[test]
    fn what_is_reflected_goes_from_one_side_to_the_other(
        sent in frames(), lan in lans(),
    ) {
        let Verdict::Reflect { mac: to } = decide(&sent, &lan) else {
            return Ok(());
        };
        let parent = lan.parents[&sent.vid];
        prop_assert!(parent.ifindex != 0);
        prop_assert!(parent.has(Parent::UP) && parent.has(Parent::HOST_ACCESS));
        let taker = if sent.is_for_a_group() {
            let (version, target) = sought(&sent).expect("a group frame that seeks an address");
            let (owner, flags) = lan.owners[&(sent.vid, version, target)];
            prop_assert_eq!(flags & (Neighbor::CONFLICT | Neighbor::DOWN), 0);
            owner
        } else {
            sent.destination()[5]
        };
        let from = lan.stations[&(sent.vid, sent.source)];
        let taken_by = lan.stations[&(sent.vid, taker)];
        prop_assert!(!from.has_twin && !taken_by.has_twin && !taken_by.is_silent);
        prop_assert!(from.role.is_of_the_host() != taken_by.role.is_of_the_host());
        let expected = match taken_by.role {
            Role::Host => parent.mac,
            _ => mac(taker),
        };
        prop_assert_eq!(to, Mac(expected));
    }

    #[test]
    fn what_is_copied_is_an_announcement(sent in frames(), lan in lans()) {
        let Verdict::Copy { mac } = decide(&sent, &lan) else {
            return Ok(());
        };
        let parent = lan.parents[&sent.vid];
        prop_assert!(parent.ifindex != 0);
        prop_assert!(parent.has(Parent::UP) && parent.has(Parent::HOST_ACCESS));
        prop_assert!(sent.is_for_a_group() && is_announcement(&sent.message));
        let from = lan.stations[&(sent.vid, sent.source)];
        prop_assert!(!from.has_twin);
        let expected = match from.role.is_of_the_host() {
            true => sent.destination(),
            false => parent.mac,
        };
        prop_assert_eq!(mac, Mac(expected));
    }

    #[test]
    fn what_takes_the_shortcut_would_be_forwarded_there_and_back(
        sent in frames(), lan in lans(),
    ) {
        let Verdict::Shortcut { vid, mac: to } = decide(&sent, &lan) else {
            return Ok(());
        };
        let Message::Packet(packet) = &sent.message else {
            panic!("no packet: {sent:?}");
        };
        prop_assert!(!sent.is_for_a_group());
        prop_assert!(!lan.stations.contains_key(&(sent.vid, sent.destination()[5])));
        prop_assert!(packet.hops > 1 && matches!(packet.rest, Rest::Plain(_)));
        prop_assert!(packet.from != LINK_LOCAL);
        let is_stripped = sent.frame(&sent.bytes()).stripped_tag.is_some();
        let from = lan.parents[&sent.vid];
        prop_assert!(!from.has(Parent::PROGRAM) || !is_stripped, "that device has decided");
        let parent = lan.parents[&vid.get()];
        prop_assert!(parent.ifindex != 0 && parent.has(Parent::UP));
        prop_assert!(sent.packet_length() <= parent.mtu.into());
        let there = (sent.vid, packet.version, packet.to);
        prop_assert_eq!(lan.routes[&there], (to.0[5], vid.get()));
        let back = (vid.get(), packet.version, packet.from);
        prop_assert_eq!(lan.routes[&back], (sent.source, sent.vid));
        prop_assert!(!lan.lacks_endpoints());
    }
}

/// Every kind of frame has each verdict that it can have.
#[test]
fn the_frames_of_the_property_tests_are_decided_over() {
    let mut runner = TestRunner::deterministic();
    let mut seen = BTreeMap::<String, u32>::new();
    for _ in 0..8192 {
        let case = (frames(), lans()).new_tree(&mut runner).unwrap();
        let (sent, lan) = case.current();
        let verdict = match decide(&sent, &lan) {
            Verdict::Pass => continue,
            Verdict::Reflect { .. } => "reflect",
            Verdict::Copy { .. } => "copy",
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
        "reflect, ARP, group",
        "reflect, ARP, one",
        "reflect, solicitation, group",
        "reflect, IPv4, one",
        "reflect, IPv6, one",
        "copy, ARP, group",
        "copy, advertisement, group",
        "shortcut, IPv4, one",
        "shortcut, IPv6, one",
    ] {
        let count = seen.get(name).copied().unwrap_or_default();
        assert!(count >= 20, "{name}: {count} of {seen:?}");
    }
}

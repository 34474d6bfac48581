//! What leaves by a VLAN's own device: what was found for one packet is true of every other it is taken for.

use std::collections::BTreeMap;

use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
use vlanfast_common::{
    Bytes, Headers, IpVersion, Mac, Protocol, RouteCacheEntry, V4, V6, Verdict, Vid, Vlan,
    heartbeat, parse, shortcut_of,
};

use crate::{
    frames::{Sent, frames},
    two_vlans::{TwoVlans, any_two_vlans},
};

/// As ifindex: one for each VLAN.
const fn device(vid: u16) -> u32 {
    100 + vid as u32
}

/// Two frames that differ in little or much.
fn pairs() -> impl Strategy<Value = [Sent; 2]> {
    (frames(), frames(), 0..7u8)
        .prop_map(|(first, other, thing)| [first.clone(), first.but_for(thing, other)])
}

/// What the frame's headers alone say.
fn decided(sent: &Sent, vlans: &TwoVlans) -> Verdict {
    let bytes = sent.untagged();
    let frame = Bytes::new(&bytes);
    let vid = Vid::new(sent.vid);
    let headers = Headers {
        vlan: Vlan::id(vid),
        ..parse(&frame)
    };
    shortcut_of(&frame, &headers, vid, vlans)
}

/// Whether the way was known, and the verdict by it.
fn by_way(sent: &Sent, way: &mut RouteCacheEntry, vlans: &TwoVlans) -> (bool, Verdict) {
    let bytes = sent.untagged();
    match parse(&Bytes::new(&bytes)).protocol {
        Protocol::IPV4 => by_way_of::<V4>(&Bytes::new(&bytes), sent.vid, way, vlans),
        Protocol::IPV6 => by_way_of::<V6>(&Bytes::new(&bytes), sent.vid, way, vlans),
        _ => (false, Verdict::Pass),
    }
}

fn by_way_of<V: IpVersion>(
    frame: &Bytes<'_>,
    vid: u16,
    way: &mut RouteCacheEntry,
    vlans: &TwoVlans,
) -> (bool, Verdict) {
    let (Some(slot), Some(heartbeat)) = (RouteCacheEntry::slot::<V>(frame), heartbeat(vlans))
    else {
        return (false, Verdict::Pass);
    };
    assert!(slot < RouteCacheEntry::SLOTS);
    let from = device(vid);
    let is_known = way.is_of::<V>(frame, from, heartbeat);
    if !is_known {
        assert!(way.find::<V>(frame, from, Vid::new(vid), heartbeat, vlans));
        assert!(way.is_of::<V>(frame, from, heartbeat));
        assert!(!way.is_of::<V>(frame, from, heartbeat + 1));
    }
    assert_eq!(way.headers::<V>().vlan, Vlan::id(Vid::new(vid)));
    if !way.takes(frame.bytes.len()) {
        return (is_known, Verdict::Pass);
    }
    let next: Vec<_> = way
        .next
        .iter()
        .flat_map(|word| word.to_ne_bytes())
        .collect();
    let mut parents = vlans.parents.iter();
    let (to, _) = parents
        .find(|(_, parent)| parent.ifindex == way.to && parent.mac == next[6..])
        .expect("the device of a VLAN");
    let verdict = Verdict::Shortcut {
        vid: Vid::new(*to),
        mac: Mac(next[..6].try_into().expect("six bytes")),
    };
    (is_known, verdict)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn what_is_remembered_says_what_the_tables_say(pair in pairs(), vlans in any_two_vlans()) {
        let mut way = RouteCacheEntry::default();
        for sent in &pair {
            let (_, verdict) = by_way(sent, &mut way, &vlans);
            prop_assert_eq!(verdict, decided(sent, &vlans), "{:?}", sent);
        }
    }
}

#[test]
fn ways_of_either_version_are_known_again_and_told_apart() {
    let mut runner = TestRunner::deterministic();
    let mut seen = BTreeMap::<String, u32>::new();
    for _ in 0..32_768 {
        let case = (pairs(), any_two_vlans()).new_tree(&mut runner).unwrap();
        let ([first, second], vlans) = case.current();
        let mut way = RouteCacheEntry::default();
        if by_way(&first, &mut way, &vlans).1 == Verdict::Pass {
            continue;
        }
        let (is_known, verdict) = by_way(&second, &mut way, &vlans);
        let known = if is_known { "known" } else { "anew" };
        let taken = if verdict == Verdict::Pass {
            "left"
        } else {
            "taken"
        };
        *seen
            .entry(format!("{}, {known}, {taken}", second.message.name()))
            .or_default() += 1;
    }
    for version in ["IPv4", "IPv6"] {
        // What is left of those that are known is too large, and just one in many.
        for (kind, least) in [("known, taken", 20), ("known, left", 1), ("anew, left", 20)] {
            let name = format!("{version}, {kind}");
            let count = seen.get(&name).copied().unwrap_or_default();
            assert!(count >= least, "{name}: {count} of {seen:?}");
        }
    }
}

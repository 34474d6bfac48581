//! What holds for any frame and any tables, and the storm limit over time.

use std::thread;

use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
use vlanfast_common::{
    Bucket, Bytes, Cast, Direction, Endpoint, Headers, Mac, Neighbor, Parent, Policy, Reason,
    Settings, Uniform, Verdict, Vid, classify, parse,
};

/// ARP, IPv4 or IPv6 behind a tag or not, with the bytes that matter likely to be right.
fn group_frames() -> impl Strategy<Value = Vec<u8>> {
    let destination = prop_oneof![
        2 => Just([0xff; 6]),
        2 => Just([0x33, 0x33, 0xff, 0, 0, 2]),
        1 => any::<[u8; 6]>(),
    ];
    let tag = prop_oneof![Just(vec![]), Just(vec![0x81, 0, 0, 10])];
    let solicitation = [
        &[0x86, 0xdd, 0x60, 0, 0, 0, 0, 24, 58, 255][..],
        &[0; 16],
        &[0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, 2],
        &[
            135, 0, 0, 0, 0, 0, 0, 0, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2,
        ],
    ]
    .concat();
    // From an address that the sender has, as far as the tables know, and from another's.
    let [arp, contradicting] = [[1, 2], [0, 1]].map(|[a, b]| {
        [
            &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1][..],
            &[2, 0, 0, 0, a, b, 10, 0, 0, 1],
            &[0, 0, 0, 0, 0, 0, 10, 0, 0, 2],
        ]
        .concat()
    });
    let mut reply = [
        &[8, 0, 0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1][..],
        &[0xff; 4],
        &[0, 67, 0, 68, 0, 0, 0, 0, 2, 1, 6],
    ]
    .concat();
    reply.resize(80, 7);
    let message = prop_oneof![
        2 => Just(solicitation),
        2 => Just(arp),
        1 => Just(contradicting),
        1 => Just(reply),
    ];
    let spoilt = (
        message,
        any::<prop::sample::Index>(),
        any::<u8>(),
        0..80usize,
    )
        .prop_map(|(mut message, place, byte, length)| {
            let place = place.index(message.len());
            // Most of them stay as they are.
            if byte > 200 {
                message[place] = byte;
            }
            if length < 10 {
                message.truncate(length * 6);
            }
            message
        });
    (destination, tag, spoilt)
        .prop_map(|(destination, tag, rest)| [&destination[..], &[2; 6], &tag, &rest].concat())
}

fn tables() -> impl Strategy<Value = Uniform> {
    let policy = (0..2u16, 0..3u32, 0..3u32, 0..3u32, 0..2u32);
    let flags = prop_oneof![4 => Just(Parent::UP), 1 => 0..1u32 << 15];
    let parent = (prop_oneof![1 => Just(0), 4 => Just(3u32)], flags);
    let often = || prop::bool::weighted(0.8);
    let seldom = prop::bool::weighted(0.2);
    let conflict = prop_oneof![4 => Just(0), 1 => 0..32u16];
    let nsid = prop_oneof![Just(Endpoint::OWN_NAMESPACE), Just(3)];
    let receiver = (seldom, (0..8u16, nsid), any::<bool>(), conflict);
    let settings = (often(), prop_oneof![4 => Just(0), 1 => 0..16u32]);
    (policy, parent, receiver, settings).prop_map(
        |(
            (steer, storm_limit, group_limit, shed, deliver),
            (ifindex, flags),
            receiver,
            (alive, incomplete),
        )| {
            let (has_endpoint, (endpoint, nsid), has_neighbor, neighbor) = receiver;
            Uniform {
                policy: Policy {
                    steer,
                    storm_limit,
                    group_limit,
                    shed,
                    deliver,
                    ..Policy::default()
                },
                settings: Settings {
                    heartbeat: if alive { 2_000 } else { 1_000 },
                    incomplete,
                    ..Settings::default()
                },
                parent: Parent {
                    ifindex,
                    flags,
                    ..Parent::default()
                },
                endpoint: has_endpoint.then_some(Endpoint {
                    flags: endpoint,
                    nsid,
                    ..Endpoint::default()
                }),
                neighbor: has_neighbor.then_some(Neighbor {
                    mac: [2, 0, 0, 0, 1, 2],
                    flags: neighbor,
                }),
                now: 1_500,
                ..Uniform::default()
            }
        },
    )
}

fn decide(bytes: &[u8], direction: Direction, tables: &Uniform) -> Verdict {
    let frame = Bytes::new(bytes);
    classify(&frame, &parse(&frame), direction, tables)
}

proptest! {
    #[test]
    fn what_is_steered_is_a_group_frame_for_a_known_receiver(
        bytes in group_frames(), tables in tables(),
    ) {
        let headers = parse(&Bytes::new(&bytes));
        if let Verdict::Steer { mac } = decide(&bytes, Direction::Rx, &tables) {
            prop_assert!(headers.cast != Cast::Unicast);
            prop_assert!(tables.policy.steer == 1 && tables.settings.heartbeat > tables.now);
            prop_assert!(!tables.parent.has(Parent::NO_STEER) && tables.parent.ifindex != 0);
            prop_assert!(tables.neighbor.is_some());
            let doubts = Neighbor::CONFLICT | Neighbor::DOWN | Neighbor::FOREIGN;
            prop_assert!(tables.neighbor.is_none_or(|receiver| !receiver.is_doubted(doubts)));
            prop_assert!(tables.endpoint.is_none(), "the sender is one of ours");
            prop_assert!(!mac.is_group() || tables.neighbor.is_none());
        }
    }

    #[test]
    fn what_is_dropped_is_allowed_to_be(bytes in group_frames(), tables in tables()) {
        let headers = parse(&Bytes::new(&bytes));
        let Verdict::Drop(reason) = decide(&bytes, Direction::Rx, &tables) else {
            return Ok(());
        };
        prop_assert!(tables.settings.heartbeat > tables.now);
        prop_assert!(!tables.parent.has(Parent::LISTENERS));
        match reason {
            Reason::Storm => {
                prop_assert!(headers.cast != Cast::Unicast && tables.policy.storm_limit > 0);
                prop_assert!(!tables.parent.has(Parent::UNLIMITED));
                let is_complete = tables.settings.incomplete & Settings::NEIGHBORS == 0;
                prop_assert!(tables.neighbor.is_some() || is_complete);
            }
            Reason::ShedVlan => {
                prop_assert!(tables.policy.shed > 0 && tables.parent.ifindex == 0);
                prop_assert!(tables.settings.incomplete & Settings::VLANS == 0);
            }
            Reason::ShedMac => {
                prop_assert!(headers.cast == Cast::Unicast && tables.policy.shed == 2);
                prop_assert!(tables.endpoint.is_none());
                prop_assert!(tables.settings.incomplete & Settings::ENDPOINTS == 0);
            }
            Reason::Group => {
                prop_assert!(headers.cast != Cast::Unicast && tables.policy.group_limit > 0);
                prop_assert!(!tables.parent.has(Parent::UNLIMITED));
            }
            Reason::Returned => prop_assert!(false, "nothing is learnt here"),
        }
    }

    #[test]
    fn what_is_delivered_has_one_receiver_that_is_here(
        bytes in group_frames(), tables in tables(),
    ) {
        let bytes = for_one(bytes);
        let Verdict::Deliver { ifindex } = decide(&bytes, Direction::Rx, &tables) else {
            return Ok(());
        };
        let receiver = tables.endpoint.unwrap();
        prop_assert!(tables.policy.deliver == 1 && tables.settings.heartbeat > tables.now);
        prop_assert!(tables.settings.incomplete & Settings::ENDPOINTS == 0);
        prop_assert!(receiver.ifindex == ifindex && receiver.nsid == Endpoint::OWN_NAMESPACE);
        prop_assert!(!receiver.has(Endpoint::HOST) && !receiver.has(Endpoint::CONFLICT));
        prop_assert!(tables.parent.has(Parent::UP) && !tables.parent.has(Parent::NO_STEER));
    }

    #[test]
    fn what_leaves_is_passed(bytes in group_frames(), tables in tables()) {
        prop_assert_eq!(decide(&bytes, Direction::Tx, &tables), Verdict::Pass);
    }
}

/// A frame to one receiver instead of a group.
fn for_one(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes[0] &= !1;
    bytes
}

#[test]
fn the_frames_of_the_property_tests_are_decided_over() {
    let mut runner = TestRunner::deterministic();
    let (mut steered, mut dropped, mut delivered) = (0, 0, 0);
    for _ in 0..2000 {
        let case = (group_frames(), tables()).new_tree(&mut runner).unwrap();
        let (bytes, tables) = case.current();
        // The first takes the token.
        decide(&bytes, Direction::Rx, &tables);
        match decide(&bytes, Direction::Rx, &tables) {
            Verdict::Steer { .. } => steered += 1,
            Verdict::Drop(_) => dropped += 1,
            _ => {}
        }
        let verdict = decide(&for_one(bytes), Direction::Rx, &tables);
        delivered += u32::from(matches!(verdict, Verdict::Deliver { .. }));
    }
    assert!(
        steered > 20 && dropped > 20 && delivered > 5,
        "{steered} steered, {dropped} dropped, {delivered} delivered"
    );
}

const SECOND: u64 = 1_000_000_000;

/// How many of a storm's frames are let through, at a frame each microsecond.
fn admitted(bucket: &Bucket, from: u64, seconds: u64, rate: u32) -> u64 {
    let times = (from..from + seconds * SECOND).step_by(1_000);
    times.filter(|now| bucket.admit(*now, rate)).count() as u64
}

#[test]
fn a_storm_is_let_through_at_the_limit() {
    for rate in [1, 100, 2_000, 30_000, 1_000_000] {
        let bucket = Bucket::default();
        let start = 100 * SECOND;
        // What was saved up, and the frame that is due at once.
        let burst = u64::from(rate) / 20 + 1;
        let first = admitted(&bucket, start, 1, rate);
        let rate = u64::from(rate);
        assert!(
            (rate..=rate + burst).contains(&first),
            "{first} of {rate}/s"
        );
        let next = admitted(&bucket, start + SECOND, 2, rate as u32);
        assert!(
            next.abs_diff(2 * rate) <= 1 + rate / 500,
            "{next} in 2 s of {rate}/s"
        );
    }
}

#[test]
fn a_quiet_network_is_not_limited() {
    let bucket = Bucket::default();
    let times = (0..10_000).map(|frame| 50 * SECOND + frame * SECOND / 1_900);
    assert!(times.into_iter().all(|now| bucket.admit(now, 2_000)));
}

/// All at the same moment of the bucket's clock, which is as bad as it gets.
#[test]
fn cpus_that_share_a_bucket_share_its_rate() {
    let bucket = Bucket::default();
    let admitted: u64 = thread::scope(|scope| {
        let cpus: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let times = (100 * SECOND..110 * SECOND).step_by(10_000);
                    times.filter(|now| bucket.admit(*now, 2_000)).count() as u64
                })
            })
            .collect();
        cpus.into_iter().map(|cpu| cpu.join().unwrap()).sum()
    });
    // Threads whose clocks are apart by seconds: each takes what is due by the latest of them.
    assert!(
        (20_000..=20_000 + 100 + 8 * 8).contains(&admitted),
        "{admitted}"
    );
}

#[test]
fn verdicts_and_headers_survive_as_numbers() {
    let mac = Mac([0x02, 0x42, 0x0a, 0x00, 0xff, 0x01]);
    let reasons = Reason::ALL.map(Verdict::Drop);
    for verdict in [
        Verdict::Pass,
        Verdict::Conflict,
        Verdict::Hairpin,
        Verdict::Steer { mac },
        Verdict::Reflect { mac },
        Verdict::CloneToLocal { mac },
        Verdict::Shortcut {
            vid: Vid::new(4094),
            mac,
        },
        Verdict::ShortcutAndProbe {
            vid: Vid::new(1),
            mac,
        },
        Verdict::Deliver { ifindex: u32::MAX },
    ]
    .into_iter()
    .chain(reasons)
    {
        assert_eq!(Verdict::from_bits(verdict.to_bits()), verdict);
    }
    for bytes in [
        &[0xff; 60][..],
        &[0; 13],
        &[0x01; 60],
        &[[2; 12].as_slice(), &[0x81, 0, 0xef, 0xfe, 0x86, 0xdd]].concat(),
    ] {
        let headers = parse(&Bytes::new(bytes));
        assert_eq!(Headers::from_bits(headers.to_bits()), headers);
    }
}

//! What is learnt from packets that leave for a router and come back from it.

use std::time::Duration;

use vlanfast_common::{Direction, Mac, Reason, Verdict, Vid};

use crate::{
    cases::packets::*,
    fixtures::tables::{CONTAINER, GUESTS, SIBLING},
    net::{
        messages::{NOBODY, RECEIVER, TAKER6, icmpv6},
        packet::{frame, tag},
    },
};

/// Nobody here has it.
const ROUTER: [u8; 6] = NOBODY;
const OTHER_ROUTER: [u8; 6] = [0x02, 0, 0, 0, 9, 8];

/// Frames one after the other, in a world that they change.
pub struct Conversation {
    pub name: &'static str,
    /// Every so many seconds the router is asked again.
    pub refresh: u32,
    pub frames: Vec<Step>,
}

/// One of them, and what becomes of it.
pub struct Step {
    pub direction: Direction,
    pub bytes: Vec<u8>,
    pub verdict: Verdict,
    /// Since the one before.
    pub after: Duration,
}

impl Step {
    fn after(self, milliseconds: u64) -> Self {
        Self {
            after: Duration::from_millis(milliseconds),
            ..self
        }
    }
}

/// The near container's for the router on VLAN 10, with 64 hops to live.
fn leaves(packet: &[u8], verdict: Verdict) -> Step {
    heard(Direction::Tx, (ROUTER, CONTAINER, 10), packet, verdict)
}

/// The far container's, which acknowledges the near one's bytes up to here.
fn acknowledges(number: u32) -> Step {
    // Swapped addresses leave the checksum as it is.
    let mut packet = ipv4(6, 1, &tcp(5_000, ACK));
    packet[2 + 12..2 + 20].copy_from_slice(&[FAR, RECEIVER].concat());
    acknowledging_back(&packet, 2 + 20, number)
}

fn acknowledges6(number: u32) -> Step {
    let mut packet = ipv6(6, &tcp(5_000, ACK));
    packet[2 + 8..2 + 40].copy_from_slice(&[FAR6, TAKER6].concat());
    acknowledging_back(&packet, 2 + 40, number)
}

/// A packet from the far container, with the ports the other way round and a number that it acknowledges.
fn acknowledging_back(packet: &[u8], transport: usize, number: u32) -> Step {
    let mut packet = packet.to_vec();
    packet[transport..transport + 4].copy_from_slice(&[0x30, 1, 0x30, 0]);
    packet[transport + 8..transport + 12].copy_from_slice(&number.to_be_bytes());
    heard(
        Direction::Tx,
        (ROUTER, CONTAINER, GUESTS),
        &packet,
        Verdict::Pass,
    )
}

/// The same packet, from the router to the far container.
fn returns(packet: &[u8]) -> Step {
    comes(&hop(packet, 1))
}

/// Any packet from there.
fn comes(packet: &[u8]) -> Step {
    let between = (CONTAINER, ROUTER, GUESTS);
    heard(Direction::Rx, between, packet, Verdict::Pass)
}

/// The same, where its receiver has it already.
fn is_dropped(packet: &[u8]) -> Step {
    Step {
        verdict: Verdict::Drop(Reason::Returned),
        ..returns(packet)
    }
}

fn heard(
    direction: Direction,
    (to, from, vid): ([u8; 6], [u8; 6], u16),
    packet: &[u8],
    verdict: Verdict,
) -> Step {
    let mut bytes = frame(to, &[&tag(0, vid)[..], packet].concat(), 64);
    bytes[6..12].copy_from_slice(&from);
    Step {
        direction,
        bytes,
        verdict,
        after: Duration::ZERO,
    }
}

/// Everything that is to be learnt, and all that must not be.
pub fn conversations() -> Vec<Conversation> {
    use Verdict::Pass;
    let said = |name, frames| Conversation {
        name,
        refresh: 0,
        frames,
    };
    let short = Verdict::Shortcut {
        vid: Vid::new(GUESTS),
        mac: Mac(CONTAINER),
    };
    let both = Verdict::ShortcutAndProbe {
        vid: Vid::new(GUESTS),
        mac: Mac(CONTAINER),
    };
    let datagram = |id| ipv4(17, id, &udp(id.into()));
    let segment = |sequence, flags| ipv4(6, sequence as u16, &tcp(sequence, flags));
    // One that the router must not be taken to have answered for.
    let unanswered = |name, wrong: Vec<Step>| {
        let mut frames = vec![leaves(&datagram(1), Pass)];
        frames.extend(wrong);
        frames.push(leaves(&datagram(2), Pass));
        said(name, frames)
    };
    let other = |to, vid| {
        heard(
            Direction::Rx,
            (to, ROUTER, vid),
            &hop(&datagram(1), 1),
            Pass,
        )
    };
    let ping6 = |sequence| icmpv6(8, 64, TAKER6, FAR6, &[128, 0, 0, 0, 0, 77, 0, sequence]);
    let learnt = || {
        vec![
            leaves(&datagram(1), Pass),
            returns(&datagram(1)),
            leaves(&datagram(2), short),
        ]
    };
    let then = |name, rest: Vec<Step>| {
        let mut frames = learnt();
        frames.extend(rest);
        said(name, frames)
    };
    vec![
        said("UDP", learnt()),
        said(
            "UDP over IPv6",
            vec![
                leaves(&ipv6(17, &udp(1)), Pass),
                leaves(&ipv6(17, &udp(2)), Pass),
                returns(&ipv6(17, &udp(1))),
                leaves(&ipv6(17, &udp(3)), short),
            ],
        ),
        said(
            "pings",
            vec![
                leaves(&ipv4(1, 1, &echo(1)), Pass),
                returns(&ipv4(1, 1, &echo(1))),
                leaves(&ipv4(1, 2, &echo(2)), short),
            ],
        ),
        said(
            "pings over IPv6",
            vec![
                leaves(&ping6(1), Pass),
                returns(&ping6(1)),
                leaves(&ping6(2), short),
            ],
        ),
        said(
            "TCP, which leaves none behind with the router",
            vec![
                leaves(&segment(99, SYN), Pass),
                returns(&segment(99, SYN)),
                leaves(&segment(100, ACK), Pass),
                leaves(&segment(110, ACK), Pass),
                returns(&segment(100, ACK)),
                acknowledges(110),
                leaves(&segment(120, ACK), Pass),
                returns(&segment(110, ACK)),
                returns(&segment(120, ACK)),
                acknowledges(130),
                leaves(&segment(130, ACK), short),
                leaves(&segment(140, ACK), short),
                leaves(&segment(150, FIN), Pass),
                leaves(&segment(160, ACK), Pass),
            ],
        ),
        said(
            "TCP over IPv6, reset",
            vec![
                leaves(&ipv6(6, &tcp(100, ACK)), Pass),
                returns(&ipv6(6, &tcp(100, ACK))),
                acknowledges6(110),
                leaves(&ipv6(6, &tcp(110, ACK)), short),
                leaves(&ipv6(6, &tcp(120, RST)), Pass),
                leaves(&ipv6(6, &tcp(120, ACK)), Pass),
            ],
        ),
        said(
            "a new connection on the same ports",
            vec![
                leaves(&segment(100, ACK), Pass),
                returns(&segment(100, ACK)),
                acknowledges(110),
                leaves(&segment(110, ACK), short),
                leaves(&segment(500, SYN), Pass),
                leaves(&segment(501, ACK), Pass),
            ],
        ),
        unanswered("no answer", vec![]),
        unanswered("no hop", vec![comes(&datagram(1))]),
        unanswered("two hops", vec![comes(&hop(&datagram(1), 2))]),
        unanswered("another identification", vec![returns(&datagram(3))]),
        unanswered("another payload", vec![returns(&ipv4(17, 1, &udp(9)))]),
        unanswered("to another's MAC", vec![other(SIBLING, GUESTS)]),
        unanswered("on the VLAN that it came from", vec![other(CONTAINER, 10)]),
        unanswered(
            "a SYN alone",
            vec![
                leaves(&segment(99, SYN), Pass),
                returns(&segment(99, SYN)),
                leaves(&segment(100, ACK), Pass),
            ],
        ),
        then(
            "another flow is another question",
            vec![
                leaves(
                    &ipv4(17, 4, &[&[0x30, 0, 0x30, 2][..], &udp(4)[4..]].concat()),
                    Pass,
                ),
                leaves(&datagram(3), short),
            ],
        ),
        then(
            "another router",
            vec![
                heard(
                    Direction::Tx,
                    (OTHER_ROUTER, CONTAINER, 10),
                    &datagram(3),
                    Pass,
                ),
                heard(
                    Direction::Tx,
                    (OTHER_ROUTER, CONTAINER, 10),
                    &datagram(4),
                    Pass,
                ),
            ],
        ),
        then(
            "from another's MAC",
            vec![heard(
                Direction::Tx,
                (ROUTER, SIBLING, 10),
                &datagram(3),
                Pass,
            )],
        ),
        then(
            "with one hop to live",
            vec![
                leaves(&hop(&datagram(3), 63), Pass),
                leaves(&hop(&datagram(4), 62), short),
            ],
        ),
        then("a fragment", vec![leaves(&fragment(&datagram(3)), Pass)]),
        then("larger than fits", vec![leaves(&large(&datagram(3)), Pass)]),
        Conversation {
            refresh: 1,
            ..then(
                "the router is asked again, and answers",
                vec![
                    leaves(&datagram(3), both).after(1_050),
                    leaves(&datagram(4), short),
                    is_dropped(&datagram(3)),
                    leaves(&datagram(5), short),
                    leaves(&datagram(6), both).after(1_050),
                ],
            )
        },
        Conversation {
            refresh: 1,
            ..then(
                "the router is asked again, and does not answer",
                vec![
                    leaves(&datagram(3), both).after(1_050),
                    leaves(&datagram(4), short).after(500),
                    leaves(&datagram(5), Pass).after(600),
                    leaves(&datagram(6), Pass),
                ],
            )
        },
        Conversation {
            refresh: 1,
            ..said(
                "a segment that comes back in two",
                vec![
                    leaves(&segment(100, ACK), Pass),
                    returns(&segment(100, ACK)),
                    acknowledges(110),
                    leaves(&segment(110, ACK), short),
                    leaves(&segment(120, ACK), both).after(1_050),
                    is_dropped(&part(&segment(120, ACK), 0)),
                    is_dropped(&part(&segment(120, ACK), 4)),
                    // What the router sends on besides is not ours to judge.
                    returns(&segment(126, ACK)),
                    returns(&segment(120, FIN)),
                    leaves(&segment(130, ACK), short),
                ],
            )
        },
        said(
            "a question that is lost is asked anew",
            vec![
                leaves(&datagram(1), Pass),
                leaves(&datagram(2), Pass).after(1_050),
                returns(&datagram(1)),
                leaves(&datagram(3), Pass),
                returns(&datagram(2)),
                leaves(&datagram(4), short),
            ],
        ),
        said(
            "TCP that the router is slow with",
            vec![
                leaves(&segment(100, ACK), Pass),
                leaves(&segment(110, ACK), Pass),
                returns(&segment(100, ACK)),
                acknowledges(110),
                leaves(&segment(120, ACK), Pass).after(1_050),
                returns(&segment(110, ACK)),
                returns(&segment(120, ACK)),
                acknowledges(130),
                leaves(&segment(130, ACK), short),
            ],
        ),
        said(
            "who answers for the far end acknowledges other bytes",
            vec![
                leaves(&segment(100, ACK), Pass),
                returns(&acknowledging(&segment(100, ACK))),
                acknowledges(110),
                leaves(&segment(110, ACK), Pass),
            ],
        ),
        Conversation {
            refresh: 1,
            ..then(
                "the router is asked late, and first",
                vec![
                    leaves(&datagram(3), Pass).after(1_600),
                    leaves(&datagram(4), Pass),
                    returns(&datagram(3)),
                    leaves(&datagram(5), short),
                ],
            )
        },
    ]
}

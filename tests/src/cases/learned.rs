//! Conversations from which `--shortcut learned` learns flows: packets that go to a router and come back from it.

use std::time::Duration;

use vlanfast_common::{
    Direction::{self, Rx, Tx},
    Mac, Reason,
    Verdict::{self, Pass},
    Vid,
};

use crate::{
    cases::packets::*,
    fixtures::tables::{CONTAINER, GUESTS, SIBLING},
    net::{
        messages::{ENDPOINT, ENDPOINT6, NOBODY, icmpv6},
        packet::{frame, tag},
    },
};

/// No device on this host has this MAC.
const ROUTER: [u8; 6] = NOBODY;
const OTHER_ROUTER: [u8; 6] = [0x02, 0, 0, 0, 9, 8];

/// Frames that run one after the other over the same tables.
pub struct Conversation {
    pub name: &'static str,
    /// The interval of probes in seconds; 0 disables them.
    pub refresh: u32,
    pub frames: Vec<Step>,
}

/// A frame of a conversation with its expected verdict.
pub struct Step {
    pub direction: Direction,
    pub bytes: Vec<u8>,
    pub verdict: Verdict,
    /// The time since the previous frame.
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

/// The near container sends a packet to the router on VLAN 10.
fn leaves(packet: &[u8], verdict: Verdict) -> Step {
    step(Tx, (ROUTER, CONTAINER, 10), packet, verdict)
}

/// The far container sends a TCP segment that acknowledges the near container's bytes up to `number`.
fn acknowledges(number: u32) -> Step {
    // Swapping the addresses does not change the checksum.
    let mut packet = ipv4(6, 1, &tcp(5_000, ACK));
    packet[2 + 12..2 + 20].copy_from_slice(&[FAR, ENDPOINT].concat());
    acknowledging_back(&packet, 2 + 20, number)
}

fn acknowledges6(number: u32) -> Step {
    let mut packet = ipv6(6, &tcp(5_000, ACK));
    packet[2 + 8..2 + 40].copy_from_slice(&[FAR6, ENDPOINT6].concat());
    acknowledging_back(&packet, 2 + 40, number)
}

/// The far container sends a packet with the ports swapped and the acknowledgement `number`.
fn acknowledging_back(packet: &[u8], transport: usize, number: u32) -> Step {
    let mut packet = packet.to_vec();
    packet[transport..transport + 4].copy_from_slice(&[0x30, 1, 0x30, 0]);
    packet[transport + 8..transport + 12].copy_from_slice(&number.to_be_bytes());
    step(Tx, (ROUTER, CONTAINER, GUESTS), &packet, Pass)
}

/// The router has forwarded a packet to the far container.
fn returns(packet: &[u8]) -> Step {
    comes(&hop(packet, 1))
}

/// The router sends a packet to the far container as it is, without a hop.
fn comes(packet: &[u8]) -> Step {
    let between = (CONTAINER, ROUTER, GUESTS);
    step(Rx, between, packet, Pass)
}

/// A forwarded packet is dropped because the shortcut has delivered it already.
fn is_dropped(packet: &[u8]) -> Step {
    Step {
        verdict: Verdict::Drop(Reason::Returned),
        ..returns(packet)
    }
}

fn step(
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

const SHORTCUT: Verdict = Verdict::Shortcut {
    vid: Vid::new(GUESTS),
    mac: Mac(CONTAINER),
};
const SHORTCUT_AND_PROBE: Verdict = Verdict::ShortcutAndProbe {
    vid: Vid::new(GUESTS),
    mac: Mac(CONTAINER),
};

fn conversation(name: &'static str, frames: Vec<Step>) -> Conversation {
    Conversation {
        name,
        refresh: 0,
        frames,
    }
}

/// A conversation that continues once its flow has been learnt.
fn learnt_then(name: &'static str, rest: Vec<Step>) -> Conversation {
    let mut frames = vec![
        leaves(&datagram(1), Pass),
        returns(&datagram(1)),
        leaves(&datagram(2), SHORTCUT),
    ];
    frames.extend(rest);
    conversation(name, frames)
}

/// A conversation from which no flow may be learnt: the router has not forwarded the first packet.
fn not_learnt(name: &'static str, wrong: Vec<Step>) -> Conversation {
    let mut frames = vec![leaves(&datagram(1), Pass)];
    frames.extend(wrong);
    frames.push(leaves(&datagram(2), Pass));
    conversation(name, frames)
}

/// A conversation in which the router is probed once a second.
fn probed(conversation: Conversation) -> Conversation {
    Conversation {
        refresh: 1,
        ..conversation
    }
}

fn datagram(id: u16) -> Vec<u8> {
    ipv4(17, id, &udp(id.into()))
}

fn segment(sequence: u32, flags: u8) -> Vec<u8> {
    ipv4(6, sequence as u16, &tcp(sequence, flags))
}

fn segment6(sequence: u32, flags: u8) -> Vec<u8> {
    ipv6(6, &tcp(sequence, flags))
}

/// Returns every conversation, for all values of `--shortcut-refresh`.
pub fn conversations() -> Vec<Conversation> {
    [
        datagrams(),
        tcp_connections(),
        not_learnt_from_these(),
        not_of_the_flow(),
        probes(),
        probes_of_tcp(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn datagrams() -> Vec<Conversation> {
    let ping6 = |sequence| icmpv6(8, 64, ENDPOINT6, FAR6, &[128, 0, 0, 0, 0, 77, 0, sequence]);
    vec![
        learnt_then("UDP", vec![]),
        conversation(
            "UDP over IPv6",
            vec![
                leaves(&ipv6(17, &udp(1)), Pass),
                leaves(&ipv6(17, &udp(2)), Pass),
                returns(&ipv6(17, &udp(1))),
                leaves(&ipv6(17, &udp(3)), SHORTCUT),
            ],
        ),
        conversation(
            "pings",
            vec![
                leaves(&ipv4(1, 1, &echo(1)), Pass),
                returns(&ipv4(1, 1, &echo(1))),
                leaves(&ipv4(1, 2, &echo(2)), SHORTCUT),
            ],
        ),
        conversation(
            "pings over IPv6",
            vec![
                leaves(&ping6(1), Pass),
                returns(&ping6(1)),
                leaves(&ping6(2), SHORTCUT),
            ],
        ),
        conversation(
            "a packet that is lost on the way to the router, and the next one",
            vec![
                leaves(&datagram(1), Pass),
                leaves(&datagram(2), Pass).after(1_050),
                returns(&datagram(1)),
                leaves(&datagram(3), Pass),
                returns(&datagram(2)),
                leaves(&datagram(4), SHORTCUT),
            ],
        ),
    ]
}

fn tcp_connections() -> Vec<Conversation> {
    vec![
        conversation(
            "TCP, which leaves no segment behind with the router",
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
                leaves(&segment(130, ACK), SHORTCUT),
                leaves(&segment(140, ACK), SHORTCUT),
                leaves(&segment(150, FIN), Pass),
                leaves(&segment(160, ACK), Pass),
            ],
        ),
        conversation(
            "TCP over IPv6, reset",
            vec![
                leaves(&segment6(100, ACK), Pass),
                returns(&segment6(100, ACK)),
                acknowledges6(110),
                leaves(&segment6(110, ACK), SHORTCUT),
                leaves(&segment6(120, RST), Pass),
                leaves(&segment6(120, ACK), Pass),
            ],
        ),
        conversation(
            "a new connection on the same ports",
            vec![
                leaves(&segment(100, ACK), Pass),
                returns(&segment(100, ACK)),
                acknowledges(110),
                leaves(&segment(110, ACK), SHORTCUT),
                leaves(&segment(500, SYN), Pass),
                leaves(&segment(501, ACK), Pass),
            ],
        ),
        conversation(
            "TCP over a slow router",
            vec![
                leaves(&segment(100, ACK), Pass),
                leaves(&segment(110, ACK), Pass),
                returns(&segment(100, ACK)),
                acknowledges(110),
                leaves(&segment(120, ACK), Pass).after(1_050),
                returns(&segment(110, ACK)),
                returns(&segment(120, ACK)),
                acknowledges(130),
                leaves(&segment(130, ACK), SHORTCUT),
            ],
        ),
        conversation(
            "a proxy that acknowledges other bytes for the far end",
            vec![
                leaves(&segment(100, ACK), Pass),
                returns(&acknowledging(&segment(100, ACK))),
                acknowledges(110),
                leaves(&segment(110, ACK), Pass),
            ],
        ),
    ]
}

fn not_learnt_from_these() -> Vec<Conversation> {
    let other = |to, vid| step(Rx, (to, ROUTER, vid), &hop(&datagram(1), 1), Pass);
    vec![
        not_learnt("nothing comes back", vec![]),
        not_learnt("without a hop", vec![comes(&datagram(1))]),
        not_learnt("two hops", vec![comes(&hop(&datagram(1), 2))]),
        not_learnt("another identification", vec![returns(&datagram(3))]),
        not_learnt("another payload", vec![returns(&ipv4(17, 1, &udp(9)))]),
        not_learnt("to another's MAC", vec![other(SIBLING, GUESTS)]),
        not_learnt("on the VLAN that it came from", vec![other(CONTAINER, 10)]),
        not_learnt(
            "a SYN alone",
            vec![
                leaves(&segment(99, SYN), Pass),
                returns(&segment(99, SYN)),
                leaves(&segment(100, ACK), Pass),
            ],
        ),
    ]
}

fn not_of_the_flow() -> Vec<Conversation> {
    let other_port = [&[0x30, 0, 0x30, 2][..], &udp(4)[4..]].concat();
    let by = |router, mac, id| step(Tx, (router, mac, 10), &datagram(id), Pass);
    vec![
        learnt_then(
            "another flow is learnt by itself",
            vec![
                leaves(&ipv4(17, 4, &other_port), Pass),
                leaves(&datagram(3), SHORTCUT),
            ],
        ),
        learnt_then(
            "another router",
            vec![
                by(OTHER_ROUTER, CONTAINER, 3),
                by(OTHER_ROUTER, CONTAINER, 4),
            ],
        ),
        learnt_then("from another's MAC", vec![by(ROUTER, SIBLING, 3)]),
        learnt_then(
            "with one hop to live",
            vec![
                leaves(&hop(&datagram(3), 63), Pass),
                leaves(&hop(&datagram(4), 62), SHORTCUT),
            ],
        ),
        learnt_then("a fragment", vec![leaves(&fragment(&datagram(3)), Pass)]),
        learnt_then("larger than fits", vec![leaves(&large(&datagram(3)), Pass)]),
    ]
}

fn probes() -> Vec<Conversation> {
    vec![
        probed(learnt_then(
            "a probe that the router forwards",
            vec![
                leaves(&datagram(3), SHORTCUT_AND_PROBE).after(1_050),
                leaves(&datagram(4), SHORTCUT),
                is_dropped(&datagram(3)),
                leaves(&datagram(5), SHORTCUT),
                leaves(&datagram(6), SHORTCUT_AND_PROBE).after(1_050),
            ],
        )),
        probed(learnt_then(
            "a probe that the router does not forward",
            vec![
                leaves(&datagram(3), SHORTCUT_AND_PROBE).after(1_050),
                leaves(&datagram(4), SHORTCUT).after(500),
                leaves(&datagram(5), Pass).after(600),
                leaves(&datagram(6), Pass),
            ],
        )),
        probed(learnt_then(
            "a flow that rested is learnt anew",
            vec![
                leaves(&datagram(3), Pass).after(1_600),
                leaves(&datagram(4), Pass),
                returns(&datagram(3)),
                leaves(&datagram(5), SHORTCUT),
            ],
        )),
    ]
}

fn probes_of_tcp() -> Vec<Conversation> {
    vec![probed(conversation(
        "a segment that comes back in two",
        vec![
            leaves(&segment(100, ACK), Pass),
            returns(&segment(100, ACK)),
            acknowledges(110),
            leaves(&segment(110, ACK), SHORTCUT),
            leaves(&segment(120, ACK), SHORTCUT_AND_PROBE).after(1_050),
            is_dropped(&part(&segment(120, ACK), 0)),
            is_dropped(&part(&segment(120, ACK), 4)),
            // Other packets that the router forwards do not end the probe.
            returns(&segment(126, ACK)),
            returns(&segment(120, FIN)),
            leaves(&segment(130, ACK), SHORTCUT),
        ],
    ))]
}

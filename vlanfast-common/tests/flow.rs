//! Flows, for any order of packets.

use std::collections::VecDeque;

use proptest::prelude::*;
use vlanfast_common::{
    ANSWER, Arrival, Bytes, CANDIDATE, Flow, FlowState, IDLE, Mac, Packet, Route, Step, Vid, parse,
};

const SECOND: u64 = 1_000_000_000;
const RECEIVER: Route = Route {
    mac: [2, 0, 0, 0, 0, 7],
    vid: 20,
};

/// A packet of TCP over IPv4, with an identification, hops, a sequence number and bytes of payload.
fn tcp(identification: u16, hops: u8, start: u32, length: u16) -> Packet {
    packet(6, identification, hops, start, length)
}

fn udp(identification: u16, hops: u8, word: u32) -> Packet {
    packet(17, identification, hops, word, 0)
}

fn packet(protocol: u8, identification: u16, hops: u8, word: u32, length: u16) -> Packet {
    let transport = match protocol {
        6 => {
            let ports = [0x30, 0, 0x30, 1];
            let rest = [0, 0, 0, 0, 0x50, 0x10, 0, 0, 0, 0, 0, 0];
            [&ports[..], &word.to_be_bytes(), &rest].concat()
        }
        _ => {
            let head = [0x30, 0, 0x30, 1, 0, 12, 0, 0];
            [&head[..], &word.to_be_bytes()].concat()
        }
    };
    let total = 20 + transport.len() as u16 + length;
    let mut ip = vec![0x45, 0];
    ip.extend(total.to_be_bytes());
    ip.extend(identification.to_be_bytes());
    ip.extend([0x40, 0, hops, protocol, 0, 0, 10, 0, 10, 2, 10, 0, 20, 2]);
    let payload = vec![0x55; length.into()];
    let macs = [2, 0, 0, 0, 9, 9, 2, 0, 0, 0, 0, 1];
    let bytes = [&macs[..], &[8, 0], &ip, &transport, &payload].concat();
    let frame = Bytes::new(&bytes);
    Packet::read(&frame, &parse(&frame), Vid::new(10)).expect("a packet to learn from")
}

/// A packet leaves whose receiver has everything before it.
fn leaves(flow: &Flow, packet: &Packet, receiver: Route, times: (u64, u64)) -> Step {
    flow.leave(packet, receiver, || Some(packet.start), times)
}

/// A flow by the shortcut, that the router has answered for at one second.
fn moved(refresh: u64) -> Flow {
    let flow = Flow::default();
    let first = tcp(1, 64, 100, 10);
    assert_eq!(
        leaves(&flow, &first, RECEIVER, (SECOND, refresh)),
        Step::Candidate
    );
    let answer = tcp(1, 63, 100, 10);
    assert_eq!(flow.arrive(&answer, RECEIVER, SECOND), Arrival::Enables);
    let next = tcp(2, 64, 110, 10);
    assert_eq!(
        leaves(&flow, &next, RECEIVER, (SECOND, refresh)),
        Step::Shortcut
    );
    flow
}

#[test]
fn a_packet_is_read_as_the_wire_has_it() {
    let packet = tcp(7, 64, 100, 10);
    assert_eq!((packet.start, packet.end), (100, 110));
    assert_eq!((packet.identification, packet.hops), (7, 64));
    assert_eq!(packet.length, 50);
    assert_eq!(packet.destination, Mac([2, 0, 0, 0, 9, 9]));
    assert_eq!(packet.key.ports, [0x3000, 0x3001]);
    assert_eq!((packet.key.protocol, packet.key.version), (6, 4));
    assert_eq!(packet.key.source().to_string(), "10.0.10.2");
    assert_eq!(packet.key.destination().to_string(), "10.0.20.2");
    assert!(packet.is_tcp() && !packet.is_syn_fin_rst());
    assert_eq!(udp(7, 64, 0x0102_0304).start, 0x0102_0304);
}

#[test]
fn a_question_waits_so_long_and_no_longer() {
    let ask = || {
        let flow = Flow::default();
        let first = udp(1, 64, 9);
        assert_eq!(leaves(&flow, &first, RECEIVER, (SECOND, 0)), Step::Candidate);
        flow
    };
    let answer = udp(1, 63, 9);
    let last = SECOND + CANDIDATE - 1;
    assert_eq!(ask().arrive(&answer, RECEIVER, last), Arrival::Enables);
    let late = SECOND + CANDIDATE;
    assert_eq!(ask().arrive(&answer, RECEIVER, late), Arrival::Ordinary);
    // Who sends on asks anew before.
    let flow = ask();
    let soon = SECOND + ANSWER - 1;
    assert_eq!(
        leaves(&flow, &udp(2, 64, 9), RECEIVER, (soon, 0)),
        Step::Router
    );
    let then = SECOND + ANSWER;
    assert_eq!(
        leaves(&flow, &udp(3, 64, 9), RECEIVER, (then, 0)),
        Step::Candidate
    );
    assert_eq!(flow.arrive(&answer, RECEIVER, then), Arrival::Ordinary);
    assert_eq!(flow.arrive(&udp(3, 63, 9), RECEIVER, then), Arrival::Enables);
}

#[test]
fn a_flow_that_rests_too_long_is_forgotten() {
    let flow = moved(0);
    let segment = tcp(3, 64, 120, 10);
    let last = SECOND + IDLE - 1;
    assert_eq!(flow.state(last), Some(FlowState::Shortcut));
    assert_eq!(flow.state(last + 1), None);
    assert_eq!(leaves(&flow, &segment, RECEIVER, (last, 0)), Step::Shortcut);
    let later = last + IDLE;
    assert_eq!(leaves(&flow, &segment, RECEIVER, (later, 0)), Step::Candidate);
    assert_eq!(flow.state(later), Some(FlowState::Candidate));
}

#[test]
fn the_router_is_asked_again_when_it_is_time_and_once() {
    let refresh = 30 * SECOND;
    let flow = moved(refresh);
    let at = |seconds: u64| seconds * SECOND;
    let leave = |id, start, now| leaves(&flow, &tcp(id, 64, start, 10), RECEIVER, (now, refresh));
    assert_eq!(leave(3, 120, at(30)), Step::Shortcut);
    assert_eq!(leave(4, 130, at(31)), Step::ShortcutAndProbe);
    assert_eq!(leave(5, 140, at(31)), Step::Shortcut);
    let back = |id, start, length| flow.arrive(&tcp(id, 63, start, length), RECEIVER, at(31));
    assert_eq!(back(5, 140, 10), Arrival::Ordinary, "it did not go there");
    assert_eq!(back(4, 125, 10), Arrival::Ordinary, "more than was asked");
    assert_eq!(back(4, 130, 10), Arrival::Returned);
    assert_eq!(leave(6, 150, at(60)), Step::Shortcut);
    assert_eq!(leave(7, 160, at(61)), Step::ShortcutAndProbe);
    // And this time nobody answers.
    assert_eq!(leave(8, 170, at(62) - 1), Step::Shortcut);
    assert_eq!(leave(9, 180, at(62)), Step::Failed);
}

#[test]
fn a_bare_acknowledgement_is_no_part_of_the_data_behind_it() {
    let flow = moved(SECOND);
    let now = 2 * SECOND;
    let data = tcp(4, 64, 130, 10);
    assert_eq!(leaves(&flow, &data, RECEIVER, (now, SECOND)), Step::ShortcutAndProbe);
    // It was with the router before; of IPv6, by the same identification.
    for id in [3, 4] {
        let bare = tcp(id, 63, 130, 0);
        assert_eq!(flow.arrive(&bare, RECEIVER, now), Arrival::Ordinary);
    }
    let back = tcp(4, 63, 130, 10);
    assert_eq!(flow.arrive(&back, RECEIVER, now), Arrival::Returned);
}

#[test]
fn tcp_moves_when_its_receiver_has_everything() {
    let flow = Flow::default();
    let times = (SECOND, 0);
    leaves(&flow, &tcp(1, 64, 100, 10), RECEIVER, times);
    assert_eq!(flow.acknowledged(), Some(0));
    let answer = tcp(1, 63, 100, 10);
    assert_eq!(flow.arrive(&answer, RECEIVER, SECOND), Arrival::Enables);
    let next = tcp(2, 64, 110, 10);
    for (acknowledged, step) in [
        (None, Step::Router),
        (Some(100), Step::Router),
        (Some(110), Step::Shortcut),
        (None, Step::Shortcut),
    ] {
        assert_eq!(flow.leave(&next, RECEIVER, || acknowledged, times), step);
    }
}

#[test]
fn another_router_or_receiver_is_another_flow() {
    let other = Route { vid: 30, ..RECEIVER };
    let segment = tcp(3, 64, 120, 10);
    let flow = moved(0);
    assert_eq!(leaves(&flow, &segment, other, (SECOND, 0)), Step::Candidate);
    let mut elsewhere = segment;
    elsewhere.destination = Mac([2, 0, 0, 0, 9, 8]);
    let flow = moved(0);
    assert_eq!(
        leaves(&flow, &elsewhere, RECEIVER, (SECOND, 0)),
        Step::Candidate
    );
    let flow = Flow::default();
    leaves(&flow, &udp(1, 64, 9), RECEIVER, (SECOND, 0));
    let arrival = flow.arrive(&udp(1, 63, 9), other, SECOND);
    assert_eq!(arrival, Arrival::Ordinary);
}

/// What a router and its wire may do with what it is sent: keep it for a while, in order, or lose it.
#[derive(Clone, Debug)]
enum Event {
    Send { length: u16 },
    Router { loses: bool },
    Wait { milliseconds: u64 },
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0..1_400u16).prop_map(|length| Event::Send { length }),
        4 => prop::bool::weighted(0.1).prop_map(|loses| Event::Router { loses }),
        1 => (0..3_000u64).prop_map(|milliseconds| Event::Wait { milliseconds }),
    ]
}

/// A segment that is with the router.
#[derive(Debug)]
struct Sent {
    segment: Packet,
    copied: bool,
}

proptest! {
    /// No segment overtakes another, and each arrives once, unless the router has lost it.
    #[test]
    fn a_connection_arrives_in_order_and_once(
        start in any::<u32>(), events in prop::collection::vec(event(), 1..200), refresh in 0..4u64,
    ) {
        let mut flow = Flow::default();
        let mut now = SECOND;
        let mut next = start;
        let mut id = 0u16;
        let mut with_router = VecDeque::<Sent>::new();
        let mut arrived = start;
        // When it was asked last with a packet that took both ways, and which that was.
        let mut question = None;
        for event in events {
            now += 1_000;
            match event {
                Event::Wait { milliseconds } => now += milliseconds * 1_000_000,
                Event::Send { length } => {
                    id = id.wrapping_add(1);
                    let segment = tcp(id, 64, next, length);
                    next = next.wrapping_add(length.into());
                    let has = Some(arrived);
                    let step = flow.leave(&segment, RECEIVER, || has, (now, refresh * SECOND));
                    if matches!(step, Step::Shortcut | Step::ShortcutAndProbe) {
                        let is_ahead = |sent: &Sent| !sent.copied && sent.segment.end != sent.segment.start;
                        prop_assert!(!with_router.iter().any(is_ahead), "{step:?} with {with_router:?}");
                        arrived = segment.end;
                    }
                    match step {
                        Step::ShortcutAndProbe => question = Some((id, now)),
                        Step::Candidate => question = None,
                        Step::Failed => (flow, question) = (Flow::default(), None),
                        Step::Router | Step::Shortcut | Step::Probe => {}
                    }
                    if step != Step::Shortcut {
                        with_router.push_back(Sent { segment, copied: step == Step::ShortcutAndProbe });
                    }
                }
                Event::Router { loses } => {
                    let Some(Sent { mut segment, copied }) = with_router.pop_front() else { continue };
                    if loses {
                        continue;
                    }
                    segment.hops -= 1;
                    let arrival = flow.arrive(&segment, RECEIVER, now);
                    if copied {
                        // After its time it comes twice, which does TCP no harm.
                        let is_in_time = question.is_some_and(|(asked, at)| {
                            asked == segment.identification && now - at < ANSWER
                        });
                        prop_assert!(!is_in_time || arrival == Arrival::Returned);
                        continue;
                    }
                    prop_assert_ne!(arrival, Arrival::Returned, "it was the only one");
                    if segment.end == segment.start {
                        // A bare acknowledgement: one that is overtaken says nothing new.
                        continue;
                    }
                    let is_next = segment.end.wrapping_sub(arrived) as i32 >= 0;
                    prop_assert!(is_next, "out of order");
                    arrived = segment.end;
                }
            }
        }
    }

    /// A router that never answers with the very packet never enables anything.
    #[test]
    fn nothing_but_the_answer_enables(
        asked in any::<(u16, u32)>(), other in any::<(u16, u32)>(), which in 0..4u8,
        hops in prop_oneof![Just(63), any::<u8>()],
    ) {
        let came = match which {
            0 => (other.0, asked.1),
            1 => (asked.0, other.1),
            _ => asked,
        };
        let flow = Flow::default();
        leaves(&flow, &udp(asked.0, 64, asked.1), RECEIVER, (SECOND, 0));
        let arrival = flow.arrive(&udp(came.0, hops, came.1), RECEIVER, SECOND);
        let is_it = asked == came && hops == 63;
        prop_assert_eq!(arrival == Arrival::Enables, is_it);
    }
}

//! Incoming unicast for devices in the trunk's own namespace.

use vlanfast_common::Verdict;

use crate::{
    cases::frame_case::{FrameCase, named},
    fixtures::tables::{CONTAINER, DOWN, GUESTS, NESTED, PARENT, PORT, SHIM, TAP, TRUNK, TWICE},
    net::{
        messages::*,
        packet::{BROADCAST, MULTICAST, frame, tag},
    },
};

/// Incoming frames with their verdicts under `--deliver redirect`.
#[rustfmt::skip]
pub fn delivering() -> Vec<FrameCase> {
    use Verdict::{Deliver, Pass};
    let macvlan = Deliver { ifindex: 7 };
    let macvtap = Deliver { ifindex: 8 };
    let ip = [8, 0, 0x45];
    let raw = |name, to, rest: &[&[u8]], verdict| FrameCase {
        name,
        bytes: frame(to, &rest.concat(), 64),
        verdict,
    };
    // The EtherType is not IP's, because `BPF_PROG_TEST_RUN` refuses an IP packet that is this short.
    let mut short = frame(SHIM, &[0x88, 0xb5], 64);
    short.truncate(20);
    vec![
        named("for a macvlan", SHIM, 10, &ip, macvlan),
        named("for a macvtap", TAP, GUESTS, &ip, macvtap),
        raw("untagged", SHIM, &[&ip], macvlan),
        raw("priority-tagged", SHIM, &[&tag(5, 0), &ip], macvlan),
        raw("with a priority", SHIM, &[&tag(5, 10), &ip], macvlan),
        raw("behind two tags of which one counts", SHIM, &[&tag(5, 0), &tag(3, 10), &ip], macvlan),
        named("IPv6", SHIM, 10, &[0x86, 0xdd, 0x60], macvlan),
        named("an ARP reply", SHIM, 10, &arp(2, SENDER, ENDPOINT), macvlan),
        named("LLC", SHIM, 10, &[0, 3, 0x42, 0x42, 3], macvlan),
        named("in another namespace", CONTAINER, 10, &ip, Pass),
        named("a MAC that two have", TWICE, 10, &ip, Pass),
        named("a MAC that two have here", SHIM, GUESTS, &ip, Pass),
        named("the parent's MAC", PARENT, 10, &ip, Pass),
        named("the trunk's MAC on a VLAN", TRUNK, 10, &ip, Pass),
        raw("the trunk's MAC", TRUNK, &[&ip], Pass),
        named("on a bridge's VLAN", SHIM, PORT, &ip, Pass),
        named("on a VLAN inside a container", SHIM, NESTED, &ip, Pass),
        named("on a VLAN that is down", SHIM, DOWN, &ip, Pass),
        named("broadcast", BROADCAST, 10, &arp(2, SENDER, ENDPOINT), Pass),
        named("to a group", MULTICAST, 10, &ip, Pass),
        raw("two VLANs", SHIM, &[&tag(0, 10), &tag(0, 10), &ip], Pass),
        raw("802.1ad", SHIM, &[&[0x88, 0xa8, 0, 10], &ip], Pass),
        FrameCase { name: "ends early", bytes: short, verdict: Pass, },
    ]
}

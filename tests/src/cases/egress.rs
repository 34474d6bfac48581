//! Outgoing frames with their verdicts under `--host-access`.

use vlanfast_common::Verdict;

use crate::{
    cases::{
        claims::{announcements, claims},
        frame_case::*,
    },
    fixtures::tables::{
        ASSIGNED, CLAIMED, CONTAINER, FOREIGN, GUESTS, HOST, HOST6, MOVED, PARENT, SHIM, SIBLING,
        STANDBY, TRUNK, TWICE, UNSURE,
    },
    net::{messages::*, packet::BROADCAST},
};

/// All outgoing frames with their verdicts under `--host-access`.
pub fn reflecting() -> Vec<FrameCase> {
    [packets(), requests(), claims(), announcements()].concat()
}

/// Unicast frames that claim no address.
#[rustfmt::skip]
fn packets() -> Vec<FrameCase> {
    use Verdict::Pass;
    let ip = IP;
    vec![
        sent("host to container", PARENT, CONTAINER, &ip, reflected(CONTAINER)),
        sent("container to host", CONTAINER, PARENT, &ip, reflected(PARENT)),
        sent("container to the trunk's MAC", CONTAINER, TRUNK, &ip, reflected(PARENT)),
        sent("container to a macvlan of the host", CONTAINER, SHIM, &ip, reflected(SHIM)),
        sent("a macvlan of the host to a container", SHIM, CONTAINER, &ip, reflected(CONTAINER)),
        sent("container to host over IPv6", CONTAINER, PARENT, &mdns6(), reflected(PARENT)),
        sent("host to its own macvlan", PARENT, SHIM, &ip, Pass),
        sent("host to a MAC that stands by", PARENT, STANDBY, &ip, Pass),
        sent("container to the wire", CONTAINER, NOBODY, &ip, Pass),
        sent("host to the wire", PARENT, NOBODY, &ip, Pass),
        sent("container to container", CONTAINER, SIBLING, &ip, Pass),
        sent("host to a MAC that two have", PARENT, TWICE, &ip, Pass),
        sent("a stranger to a container", NOBODY, CONTAINER, &ip, Pass),
        sent("container to host with a tag within", CONTAINER, PARENT, &[0x81, 0, 0, 20, 8, 0], Pass),
        named("another VLAN", CONTAINER, GUESTS, &ip, Pass),
    ]
}

/// Requests reach the other side as well as the wire, if the sender owns its source address.
#[rustfmt::skip]
fn requests() -> Vec<FrameCase> {
    use Verdict::Pass;
    let (_, endpoint_group) = group(ENDPOINT6);
    let (_, host_group) = group(HOST6);
    let host_asks =
        |name, target, verdict| sent(name, PARENT, BROADCAST, &arp(1, SENDER, target), verdict);
    let asks = |name, sender, target, verdict| {
        sent(name, CONTAINER, BROADCAST, &arp(1, sender, target), verdict)
    };
    let solicits = |name, sender, verdict| {
        sent(
            name,
            CONTAINER,
            host_group,
            &solicitation(sender, HOST6),
            verdict,
        )
    };
    vec![
        host_asks("host asks for a container", ENDPOINT, cloned(CONTAINER)),
        host_asks("host asks for an address that is down", IS_DOWN, Pass),
        host_asks("host asks for a conflicting address", CONFLICTING, Pass),
        host_asks("host asks for an address of the wire's", FOREIGN, Pass),
        host_asks("host asks for an address that is not sure", UNSURE, Pass),
        host_asks("host asks for an address that Docker gave", ASSIGNED, cloned(CONTAINER)),
        host_asks("host asks for an address that the wire claims", CLAIMED, Pass),
        host_asks("host asks for an address that one of ours claims", MOVED, cloned(CONTAINER)),
        host_asks("host asks the wire", ABSENT, Pass),
        sent("host solicits a container", PARENT, endpoint_group, &solicitation(SENDER6, ENDPOINT6), cloned(CONTAINER)),
        asks("container asks for the host", ENDPOINT, HOST, cloned(PARENT)),
        asks("container asks for the host by Docker's address", ASSIGNED, HOST, cloned(PARENT)),
        asks("container probes for the host's address", [0; 4], HOST, cloned(PARENT)),
        asks("container asks for the host by another's address", PEERS, HOST, Pass),
        asks("container asks for the host by the host's address", HOST, ENDPOINT, Pass),
        asks("container asks for the host from an unknown address", SENDER, HOST, Pass),
        asks("container asks for the host by an address that is not sure", UNSURE, HOST, Pass),
        asks("container asks for the host by an address of the wire's", FOREIGN, HOST, Pass),
        asks("container asks for the host by a claimed address", CLAIMED, HOST, Pass),
        asks("container asks for a container", ENDPOINT, PEERS, Pass),
        asks("container probes its own address", [0; 4], ENDPOINT, Pass),
        solicits("container solicits the host", ENDPOINT6, cloned(PARENT)),
        solicits("container looks for the host's duplicate", [0; 16], cloned(PARENT)),
        solicits("container solicits the host from an unknown address", SENDER6, Pass),
        sent("container's own address detection", CONTAINER, endpoint_group, &solicitation([0; 16], ENDPOINT6), Pass),
        sent("host's DHCP reply", PARENT, BROADCAST, &udp(0x45, 0, ALL, TO_CLIENT, &dhcp(2, CONTAINER)), Pass),
        sent("host's mDNS", PARENT, [1, 0, 0x5e, 0, 0, 0xfb], &udp(0x45, 0, [224, 0, 0, 251], MDNS, &[0; 40]), Pass),
    ]
}

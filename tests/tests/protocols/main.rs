//! Level `vm`: real protocols, spoken by widely used programs, between a router, a Docker host and its containers.
//! Each scenario runs without vlanfast and with it, and must have the same outcome.

mod arp;
mod dhcp;
mod lan;
mod mdns;
mod ndp;
mod neighbours;
mod vrrp;

use std::fmt::Debug;

use lan::Lan;
use vlanfast_tests::net::topology::Wire;

/// Plays a scenario on a fresh LAN without vlanfast, then with it by TC and by native XDP; returns the outcome, which
/// was the same each time.
fn alike<T: Debug + PartialEq>(scenario: impl Fn(&Lan) -> T) -> T {
    let without = scenario(&Lan::new(Wire::veth().unwrap()).unwrap());
    for (wire, ingress) in [
        (Wire::veth as fn() -> _, "tc"),
        // This is native XDP as on a NIC whose driver has it.
        (Wire::virtio, "xdp"),
    ] {
        let mut lan = Lan::new(wire().unwrap()).unwrap();
        lan.attach(ingress).unwrap();
        let with = scenario(&lan);
        lan.detach().unwrap();
        assert_eq!(
            with, without,
            "left: with --ingress {ingress}; right: without"
        );
    }
    without
}

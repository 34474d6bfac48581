//! Level `vm`: real protocols, spoken by widely used programs, between a router, a Docker host and its containers.
//! Each scenario runs without vlanfast and with it, and must have the same outcome.

mod arp;
mod dhcp;
mod mdns;
mod ndp;
mod neighbours;
mod vlan10;
mod vrrp;

use std::fmt::Debug;

use vlan10::Vlan10;
use vlanfast_tests::net::topology::Wire;

/// Plays a scenario on a fresh LAN without vlanfast, then with it by TC and by native XDP; returns the outcome, which
/// was the same each time.
fn alike<T: Debug + PartialEq>(scenario: impl Fn(&Vlan10) -> T) -> T {
    let without = scenario(&Vlan10::new(Wire::veth().unwrap()).unwrap());
    for (wire, ingress) in [
        (Wire::veth as fn() -> _, "tc"),
        // This is native XDP as on a NIC whose driver has it.
        (Wire::virtio, "xdp"),
    ] {
        let mut vlan10 = Vlan10::new(wire().unwrap()).unwrap();
        vlan10.attach(ingress).unwrap();
        let with = scenario(&vlan10);
        vlan10.detach().unwrap();
        assert_eq!(
            with, without,
            "left: with --ingress {ingress}; right: without"
        );
    }
    without
}

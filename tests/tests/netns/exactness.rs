//! The counters equal the traffic, to the frame and the byte.

use vlanfast_tests::{
    live::trunk::{HOST_ADDRESS, ROUTER_ADDRESS, bulk, corpus_both_ways, settle},
    net::{
        capture::Packets,
        packet::{TRUNK_MAC, frame, tag},
        tally::{Cast, CounterKey, Sums, add},
        topology::{WIRE, Wire},
    },
    require,
    run::{program::Attached, require::kernel_at_least},
};

#[test]
fn tc_counts_every_frame_both_ways() {
    require!("tc", nix::unistd::geteuid().is_root(), "needs root");
    let kind = if kernel_at_least(6, 6) {
        "tcx"
    } else {
        "clsact"
    };
    corpus_both_ways(&Wire::veth().unwrap(), "tc", kind).unwrap();
}

#[test]
fn native_xdp_counts_every_frame_both_ways() {
    require!("xdp", nix::unistd::geteuid().is_root(), "needs root");
    let wire = Wire::veth().unwrap();
    wire.keep_tags().unwrap();
    corpus_both_ways(&wire, "xdp", "xdp-native").unwrap();
}

#[test]
fn generic_xdp_counts_every_frame_both_ways() {
    require!(
        "xdp-generic",
        nix::unistd::geteuid().is_root(),
        "needs root"
    );
    let wire = Wire::veth().unwrap();
    wire.keep_tags().unwrap();
    corpus_both_ways(&wire, "xdp-generic", "xdp-generic").unwrap();
}

/// Creates a veth trunk with an address on either end.
fn addressed() -> Wire {
    let wire = Wire::veth().unwrap();
    wire.host
        .run(&format!("ip addr add {HOST_ADDRESS}/24 dev {}", wire.trunk))
        .unwrap();
    wire.router
        .run(&format!("ip addr add {ROUTER_ADDRESS}/24 dev {WIRE}"))
        .unwrap();
    wire
}

#[test]
fn a_bulk_transfer_that_gro_merges_counts_as_wire_packets() {
    require!(
        "bulk with GRO",
        nix::unistd::geteuid().is_root(),
        "needs root"
    );
    let wire = addressed();
    wire.host
        .run(&format!("ethtool -K {} gro on", wire.trunk))
        .unwrap();
    bulk(&wire, &wire.host, "tc").unwrap();
}

#[test]
fn a_bulk_transfer_without_gro_counts_the_same_way() {
    require!(
        "bulk without GRO",
        nix::unistd::geteuid().is_root(),
        "needs root"
    );
    let wire = addressed();
    wire.host
        .run(&format!("ethtool -K {} gro off", wire.trunk))
        .unwrap();
    bulk(&wire, &wire.host, "tc").unwrap();
}

#[test]
fn a_bulk_transfer_through_native_xdp_is_exact() {
    require!(
        "bulk with XDP",
        nix::unistd::geteuid().is_root(),
        "needs root"
    );
    let wire = addressed();
    wire.keep_tags().unwrap();
    bulk(&wire, &wire.host, "xdp").unwrap();
}

#[test]
fn vlans_that_differ_only_in_pcp_are_one_row() {
    require!("pcp", nix::unistd::geteuid().is_root(), "needs root");
    let wire = Wire::veth().unwrap();
    let attached = Attached::start(&wire.host, &wire.trunk, &[]).unwrap();
    let router = Packets::open(&wire.router.path(), WIRE, false).unwrap();
    let mut rx = Sums::new();
    for pcp in 0..8 {
        router
            .send(&frame(
                TRUNK_MAC,
                &[&tag(pcp, 100)[..], &[8, 0]].concat(),
                64,
            ))
            .unwrap();
        add(&mut rx, CounterKey::Vlan(100), Cast::Unicast, 1, 64);
    }
    settle(&attached, &rx, &Sums::new());
    attached.stop().unwrap();
}

//! Steering, the storm limit and shedding for untagged frames on the trunk itself, with every way to read ingress;
//! `storm.rs` of level `vm` covers a VLAN.

use vlanfast_tests::{live_tests, net::topology::Wire};

fn veth() -> anyhow::Result<Wire> {
    Wire::veth()?.keeping_tags()
}

fn queues() -> anyhow::Result<Wire> {
    Wire::veth_with_queues(2)?.keeping_tags()
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

live_tests!(tc: Wire::veth(), 0, "tc", if is_root(), "needs root");
live_tests!(xdp: veth(), 0, "xdp", if is_root(), "needs root");
live_tests!(xdp_generic: veth(), 0, "xdp-generic", if is_root(), "needs root");
live_tests!(
    xdp_by_queues: queues(), 0, "xdp", if is_root(), "needs root";
    storm::a_storm_that_comes_in_by_several_queues_is_cut_off_as_one
);

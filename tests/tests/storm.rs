//! Level `vm`: steering, the storm limit and shedding on a VLAN with a device of its own. TC finds the tags in
//! metadata, and XDP finds them in the bytes.

use vlanfast_tests::{live_tests, net::topology::Wire, run::require::in_the_lab};

fn veth() -> anyhow::Result<Wire> {
    Wire::veth()?.keeping_tags()
}

live_tests!(tags_in_metadata: Wire::veth(), 10, "tc", if in_the_lab(), "needs the lab's virtual machine");
live_tests!(tags_in_bytes: veth(), 10, "xdp", if in_the_lab(), "needs the lab's virtual machine");
live_tests!(virtio: Wire::virtio(), 10, "auto", if in_the_lab(), "needs the lab's virtual machine");

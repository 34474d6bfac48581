//! Receivers other than devices: third-party filters and programs, and packet sockets.

use std::{thread, time::Duration};

use vlanfast_tests::{
    fixtures::macvlans::{attach, container},
    in_the_lab,
    net::{capture::Packets, packet::frame, topology::Wire},
    require,
    run::{
        foreign_program::{BPF_F_AFTER, ForeignProgram},
        observe::listeners,
        program::vlanfast,
        require::kernel_at_least,
    },
};

use crate::receivers::{QUIET, is_root, wire};

/// A direct-action filter that passes every frame unchanged.
const FILTER: &str = "protocol all bpf da bytecode '1,6 0 0 4294967295,'";

/// Checks that shedding is refused because of the filter.
fn is_refused(wire: &Wire, words: &str) {
    for shed in ["vlan", "mac"] {
        let arguments = ["attach", &wire.trunk, "--metrics", "off", "--shed", shed];
        let ended = vlanfast(&wire.host, &arguments).unwrap();
        assert_eq!(ended.code, Some(4), "{}", ended.stderr);
        assert!(ended.stderr.contains(words), "{}", ended.stderr);
        assert_eq!(ended.stderr.trim_end().lines().count(), 1);
    }
}

#[test]
fn filters_and_programs_of_others_are_receivers() {
    require!("filters", is_root(), "needs root");
    let wire = Wire::veth().unwrap();
    let (host, trunk) = (&wire.host, &wire.trunk);
    host.run(&format!("tc qdisc add dev {trunk} clsact"))
        .unwrap();
    let add = |hook, what| {
        let line = format!("tc filter add dev {trunk} {hook} {what}");
        host.run(&line).unwrap();
    };
    add("ingress", FILTER);
    is_refused(&wire, "a tc filter with an action");
    let attached = attach(&wire, &[]);
    listeners(&attached, 0, &["filters"]);
    host.run(&format!("tc filter del dev {trunk} ingress pref 49152"))
        .unwrap();
    listeners(&attached, 0, &[]);
    // A filter on egress receives no incoming frame, and the second filter only sets a class.
    add("egress", FILTER);
    let class = FILTER.replace(" da ", " ") + " classid 1:1";
    add("ingress", &class);
    thread::sleep(QUIET);
    listeners(&attached, 0, &[]);
    if kernel_at_least(6, 6) {
        let mut program = ForeignProgram::tc("neighbour").unwrap();
        program.attach_tcx(host, trunk, true, BPF_F_AFTER).unwrap();
        listeners(&attached, 0, &["filters"]);
        drop(program);
        listeners(&attached, 0, &[]);
    }
    attached.stop().unwrap();
}

#[test]
fn packet_sockets_for_one_type_are_receivers() {
    require!("sockets", is_root(), "needs root");
    const ARP: u16 = libc::ETH_P_ARP as u16;
    const LLDP: u16 = 0x88cc;
    let wire = Wire::veth().unwrap();
    let (host, trunk) = (wire.host.path(), &wire.trunk);
    let socket = Packets::open_for(&host, trunk, ARP).unwrap();
    is_refused(&wire, "a packet socket for one EtherType");
    let attached = attach(&wire, &[]);
    listeners(&attached, 0, &["sockets"]);
    drop(socket);
    listeners(&attached, 0, &[]);
    // The sockets are a capture, a socket that only sends, and one for a protocol that no VLAN carries.
    let others = [libc::ETH_P_ALL as u16, 0, LLDP];
    let others = others.map(|it| Packets::open_for(&host, trunk, it).unwrap());
    // One more socket listens on a container's own device.
    let inside = container(&wire, "mv0", "192.0.2.10");
    let own = Packets::open_for(&inside.path(), "mv0", ARP).unwrap();
    thread::sleep(QUIET);
    listeners(&attached, 0, &[]);
    drop((others, own));
    attached.stop().unwrap();
}

/// The frames are tagged, which needs 802.1Q; only the lab has it for certain.
mod tagged {
    use super::*;

    #[test]
    fn a_filter_that_redirects_a_mac_of_a_vlan_gets_it() {
        in_the_lab!("filter on a VLAN");
        const MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x77];
        let wire = wire("wire.10");
        let (host, trunk) = (&wire.host, &wire.trunk);
        host.run(&format!(
            "ip link add t0 type veth peer name t1 && ip link set t0 up && ip link set t1 up && \
             tc qdisc add dev {trunk}.10 clsact && tc filter add dev {trunk}.10 ingress protocol all \
             flower dst_mac 02:00:00:00:00:77 action mirred egress redirect dev t0"
        ))
        .unwrap();
        let taken = || {
            let before = Wire::statistic(host, "t1", "rx_packets").unwrap();
            let socket = Packets::open(&wire.router.path(), "wire.10", false).unwrap();
            for _ in 0..50 {
                socket.send(&frame(MAC, &[0x88, 0xb5], 60)).unwrap();
            }
            thread::sleep(Duration::from_millis(300));
            Wire::statistic(host, "t1", "rx_packets").unwrap() - before
        };
        assert_eq!(taken(), 50, "without vlanfast");
        let attached = attach(&wire, &["--shed", "mac"]);
        listeners(&attached, 10, &["filters"]);
        assert_eq!(taken(), 50);
        // Without the filter there is no receiver, and the frames are shed.
        host.run(&format!("tc filter del dev {trunk}.10 ingress"))
            .unwrap();
        listeners(&attached, 10, &[]);
        assert_eq!(taken(), 0);
        // A filter on the trunk runs before all VLAN devices, and may redirect frames of any VLAN.
        host.run(&format!(
            "tc qdisc replace dev {trunk} clsact; tc filter add dev {trunk} ingress protocol 802.1q \
             flower action mirred egress redirect dev t0"
        ))
        .unwrap();
        listeners(&attached, 0, &["filters"]);
        listeners(&attached, 10, &["filters"]);
        attached.stop().unwrap();
    }
}

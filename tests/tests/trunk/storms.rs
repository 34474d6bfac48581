//! Storms on a VLAN where a station answers for addresses that no device of that VLAN shows.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use vlanfast_tests::{
    fixtures::{
        one_vlan::{OneVlan, request, solicit},
        vlan_counts::VlanCounts,
    },
    in_the_lab,
    net::{
        capture::Packets,
        messages::{ABSENT, SENDER, arp},
        packet::{ROUTER_MAC, frame},
        topology::{WIRE, Wire},
    },
    run::observe::listeners,
};

const LIMIT: [&str; 2] = ["--storm-limit", "20"];
/// The rate of a storm in frames per second.
const RATE: u64 = 500;

/// Sends a request several times amid a storm of requests for absent hosts; returns the number of answers.
fn answers(vlan: &OneVlan, asking: &[u8], times: u64) -> u64 {
    let router = vlan.wire.router.path();
    let ear = Packets::open(&router, &format!("{WIRE}.10"), true).unwrap();
    let raging = Arc::new(AtomicBool::new(true));
    let socket = vlan.sender().unwrap();
    let storm = socket.send_steadily(request(ABSENT), RATE, Arc::clone(&raging));
    thread::sleep(Duration::from_millis(500));
    for _ in 0..times {
        vlan.send(asking, 1).unwrap();
        thread::sleep(Duration::from_millis(50));
    }
    raging.store(false, Ordering::Relaxed);
    let (sent, _) = storm.join().unwrap();
    assert!(sent > RATE / 2, "that was no storm: {sent}");
    thread::sleep(Duration::from_millis(500));
    let heard = ear.incoming().unwrap();
    let is_answer = |it: &&Vec<u8>| {
        let (arp, nd) = ([8, 6], [0x86, 0xdd]);
        it[..6] == ROUTER_MAC
            && match [it[12], it[13]] {
                kind if kind == arp => it[20..22] == [0, 2] && it[28..32] == asking[38..42],
                kind if kind == nd => it[54] == 136 && it[62..78] == asking[62..78],
                _ => false,
            }
    };
    heard.iter().filter(is_answer).count() as u64
}

/// A Linux host answers for its addresses on every device (`arp_ignore`), and for IPv6 as a proxy.
#[test]
fn an_address_on_another_vlan_is_answered_amid_a_storm() {
    in_the_lab!("another VLAN");
    for ingress in ["tc", "xdp"] {
        let wire = Wire::veth().unwrap().keeping_tags().unwrap();
        let vlan = OneVlan::new(wire, 10, ingress, 2).unwrap();
        let (wire, container) = (&vlan.wire, vlan.container(0));
        let trunk = &wire.trunk;
        wire.vlan(20).unwrap();
        wire.host
            .run(&format!(
                "ip addr add 10.0.20.250/24 dev {trunk}.20 && \
                 ip link add link {trunk}.20 name mv20 type macvlan mode bridge && \
                 ip link set mv20 netns {}",
                container.name
            ))
            .unwrap();
        container
            .run(
                "echo 0 >/proc/sys/net/ipv6/conf/mv20/disable_ipv6 && \
                 ip addr add 10.0.20.2/24 dev mv20 && ip addr add fd00:20::2/64 dev mv20 nodad && \
                 ip link set mv20 up && cd /proc/sys/net/ipv6 && echo 1 >conf/eth0/forwarding && \
                 echo 1 >conf/eth0/proxy_ndp && echo 0 >neigh/eth0/proxy_delay && \
                 ip neigh add proxy fd00:20::2 dev eth0",
            )
            .unwrap();
        let mut theirs6 = [0; 16];
        (theirs6[0], theirs6[3], theirs6[15]) = (0xfd, 0x20, 2);
        let kinds = [
            ("a container's", request([10, 0, 20, 2])),
            ("the host's", request([10, 0, 20, 250])),
            ("a container's, IPv6", solicit(theirs6)),
        ];
        for (name, asking) in &kinds {
            assert_eq!(answers(&vlan, asking, 10), 10, "{name}, without vlanfast");
        }
        let attached = vlanfast_tests::fixtures::macvlans::attach(
            wire,
            &[&["--ingress", ingress], &LIMIT[..]].concat(),
        );
        vlanfast_tests::run::observe::eventually("everyone", &attached, |rows| rows.len() == 3);
        for (name, asking) in &kinds {
            assert_eq!(answers(&vlan, asking, 10), 10, "{name}, {ingress}");
        }
        let drops = VlanCounts::of(wire, 10).unwrap().storm;
        assert!(drops > RATE / 2, "{drops} were dropped");
        attached.stop().unwrap();
    }
}

/// Clears a flag when it is dropped.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// A packet socket answers for an address that no device has, as MetalLB does in layer 2 mode.
#[test]
fn a_socket_that_answers_arp_does_so_amid_a_storm() {
    in_the_lab!("MetalLB");
    const SERVICE: [u8; 4] = [10, 0, 10, 200];
    let vlan = OneVlan::new(Wire::veth().unwrap(), 10, "tc", 1).unwrap();
    let device = format!("{}.10", vlan.wire.trunk);
    let socket = Packets::open_for(&vlan.wire.host.path(), &device, libc::ETH_P_ARP as u16);
    let (socket, mac) = (socket.unwrap(), vlan.host.mac);
    let answering = AtomicBool::new(true);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut answer = frame(ROUTER_MAC, &arp(2, SERVICE, SENDER), 60);
            answer[6..12].copy_from_slice(&mac);
            answer[22..28].copy_from_slice(&mac);
            while answering.load(Ordering::Relaxed) {
                let heard = socket.incoming().unwrap();
                let asking = heard
                    .iter()
                    .filter(|it| it[20..22] == [0, 1] && it[38..42] == SERVICE);
                asking.for_each(|_| socket.send(&answer).unwrap());
                thread::sleep(Duration::from_millis(5));
            }
            drop(socket);
        });
        // A failed assertion ends the thread too.
        let end = End(&answering);
        let asking = request(SERVICE);
        assert_eq!(answers(&vlan, &asking, 50), 50, "without vlanfast");
        let attached = vlan.attach(&LIMIT).unwrap();
        listeners(&attached, 10, &["sockets"]);
        assert_eq!(answers(&vlan, &asking, 50), 50);
        assert_eq!(VlanCounts::of(&vlan.wire, 10).unwrap().storm, 0);
        drop(end);
        listeners(&attached, 10, &[]);
        assert_eq!(answers(&vlan, &asking, 5), 0);
        let drops = VlanCounts::of(&vlan.wire, 10).unwrap().storm;
        assert!(drops > RATE / 4, "{drops} were dropped");
        attached.stop().unwrap();
    });
}

//! Level `vm`: whatever happens to vlanfast, Docker or the trunk, vlanfast loses no packet and breaks no connection.
//! The tests send 10,000 packets a second each way over the trunk, and run a TCP connection between the router and a
//! container of VLAN 10.

use std::{
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::{Signal, kill};
use vlanfast_tests::{
    live::trunk::{HOST_ADDRESS, ROUTER_ADDRESS},
    net::{
        echo::EchoConnection,
        namespace::{Netns, run},
        topology::{WIRE, Wire},
        traffic::Traffic,
    },
    require,
    run::{
        docker::Docker,
        observe::eventually,
        program::{Attached, binary, detach, next_binary},
        require::{in_the_lab, kernel_at_least},
    },
};

const RATE: u64 = 10_000;

/// A trunk with VLAN 10, a router and a container on it.
struct OneContainer {
    wire: Wire,
    container: Netns,
    /// The container's address.
    address: &'static str,
}

impl OneContainer {
    fn new() -> Self {
        let wire = Wire::here().unwrap();
        wire.vlan(10).unwrap();
        wire.router
            .run(&format!("ip addr add {ROUTER_ADDRESS}/24 dev {WIRE}.10"))
            .unwrap();
        let container = wire.container(10, HOST_ADDRESS).unwrap();
        if !kernel_at_least(6, 6) {
            // Adding this qdisc costs packets with any tool; see `netns/life.rs`.
            wire.host
                .run(&format!("tc qdisc add dev {} clsact", wire.trunk))
                .unwrap();
        }
        Self {
            wire,
            container,
            address: HOST_ADDRESS,
        }
    }

    fn attach(&self) -> Attached {
        self.attach_by(binary())
    }

    fn attach_by(&self, binary: String) -> Attached {
        let arguments = ["--ingress", "tc", "--on-exit", "keep", "--metrics", "off"];
        Attached::start_by(binary, &self.wire.host, &self.wire.trunk, &arguments).unwrap()
    }

    /// Runs a disturbance under traffic in both directions, and checks that nothing is lost.
    fn lose_nothing(&self, what: &str, disturb: impl FnOnce()) {
        let connection =
            EchoConnection::start(&self.wire.router, &self.container, self.address).unwrap();
        let traffic = Traffic::start(&self.wire, RATE).unwrap();
        thread::sleep(Duration::from_millis(500));
        disturb();
        thread::sleep(Duration::from_millis(500));
        let (inwards, outwards) = traffic.stop().unwrap();
        let heard = connection
            .stop()
            .unwrap_or_else(|error| panic!("{what}: {error:#}"));
        println!(
            "figure: {what}: in: {inwards}; out: {outwards}; TCP: {} answers, longest silence {:.0} ms",
            heard.answers,
            heard.longest_silence.as_secs_f64() * 1e3
        );
        assert_eq!((inwards.lost(), outwards.lost()), (0, 0), "{what}");
    }
}

#[test]
fn nothing_that_happens_to_vlanfast_costs_a_packet() {
    require!("life", in_the_lab(), "needs the lab's virtual machine");
    let one_container = OneContainer::new();
    let mut attached = Some(one_container.attach());
    one_container.lose_nothing("kill -9 and attach again", || {
        attached.take().unwrap().kill().unwrap();
        thread::sleep(Duration::from_millis(500));
        attached = Some(one_container.attach());
    });
    one_container.lose_nothing("restart, as systemd does it", || {
        attached.take().unwrap().stop().unwrap();
        attached = Some(one_container.attach());
    });
    one_container.lose_nothing("upgrade to other maps, and back", || {
        attached.take().unwrap().stop().unwrap();
        let next = one_container.attach_by(next_binary());
        thread::sleep(Duration::from_millis(500));
        next.stop().unwrap();
        attached = Some(one_container.attach());
    });
    one_container.lose_nothing("SIGSTOP for 10 s", || {
        let attached = attached.as_ref().unwrap();
        kill(attached.pid(), Signal::SIGSTOP).unwrap();
        thread::sleep(Duration::from_secs(5));
        let status = attached.status().unwrap();
        assert_eq!(status["heartbeat"], "expired", "{status}");
        thread::sleep(Duration::from_secs(5));
        kill(attached.pid(), Signal::SIGCONT).unwrap();
        thread::sleep(Duration::from_secs(2));
        assert_eq!(attached.status().unwrap()["heartbeat"], "alive");
    });
    one_container.lose_nothing("100 containers made and removed", || {
        for round in 0..10 {
            let containers: Vec<_> = (0..10)
                .map(|number| {
                    one_container
                        .wire
                        .container(10, &format!("192.0.2.{}", 10 + round * 10 + number))
                        .unwrap()
                })
                .collect();
            drop(containers);
        }
    });
    let attached = attached.unwrap();
    eventually("the one that is left", &attached, |endpoints| {
        endpoints.len() == 1
    });
    attached.stop().unwrap();
    detach(&one_container.wire.host, &one_container.wire.trunk).unwrap();
}

#[test]
fn a_docker_daemon_that_is_killed_and_started_again_costs_nothing() {
    require!("dockerd", in_the_lab(), "needs the lab's virtual machine");
    let mut one_container = OneContainer::new();
    let mut docker = Docker::start().unwrap();
    let trunk = one_container.wire.trunk.clone();
    run(&format!(
        "docker network create -d macvlan --subnet=192.0.2.0/24 -o parent={trunk}.10 life"
    ))
    .unwrap();
    run("docker run -d --name life --net life --ip 192.0.2.77 phusion/baseimage:latest").unwrap();
    // The connection ends in one of Docker's containers.
    let pid = run("docker inspect -f '{{.State.Pid}}' life").unwrap();
    one_container.container = Netns::of(pid.trim()).unwrap();
    one_container.address = "192.0.2.77";
    let attached = one_container.attach();
    eventually("the container", &attached, |endpoints| endpoints.len() == 1);
    one_container.lose_nothing("dockerd killed and started again", || {
        docker.kill().unwrap();
        docker.restart().unwrap();
    });
    assert_eq!(attached.endpoints().unwrap().len(), 1);
    attached.stop().unwrap();
    detach(&one_container.wire.host, &trunk).unwrap();
}

/// Packets that are sent while the trunk is down are lost; later ones are not.
#[test]
fn a_trunk_that_was_down_works_as_before() {
    require!("trunk", in_the_lab(), "needs the lab's virtual machine");
    let one_container = OneContainer::new();
    let trunk = &one_container.wire.trunk;
    let attached = one_container.attach();
    let connection = EchoConnection::start(
        &one_container.wire.router,
        &one_container.container,
        HOST_ADDRESS,
    )
    .unwrap();
    let host = &one_container.wire.host;
    host.run(&format!(
        "ip link set {trunk} down && sleep 1 && ip link set {trunk} up"
    ))
    .unwrap();
    // The VLAN device goes down and comes up with the trunk (VLAN_FLAG_LOOSE_BINDING is not set).
    one_container.lose_nothing("trunk down and up: afterwards", || {});
    let heard = connection.stop().unwrap();
    println!(
        "figure: trunk down for 1 s: TCP: {} answers, longest silence {:.1} s",
        heard.answers,
        heard.longest_silence.as_secs_f64()
    );
    assert_eq!(attached.endpoints().unwrap().len(), 1);
    attached.stop().unwrap();
    detach(&one_container.wire.host, &one_container.wire.trunk).unwrap();
}

/// Returns the BPF, TC and offload state of the kernel, as other tools show it.
fn shown(host: &Netns, trunk: &str) -> Vec<(String, String)> {
    [
        "bpftool -j link".into(),
        "bpftool -j prog".into(),
        "bpftool -j map".into(),
        "bpftool -j net".into(),
        "find /sys/fs/bpf".into(),
        format!("ethtool -k {trunk}"),
        format!("tc qdisc show dev {trunk}"),
    ]
    .map(|command: String| {
        let said = host.run(&command).unwrap();
        (command, said)
    })
    .into()
}

#[test]
fn after_a_detach_all_is_as_it_was() {
    require!("residue", in_the_lab(), "needs the lab's virtual machine");
    for (wire, ingress) in [
        (Wire::virtio().unwrap(), "xdp"),
        (Wire::veth().unwrap(), "tc"),
    ] {
        let (host, trunk) = (&wire.host, &wire.trunk);
        let before = shown(host, trunk);
        for on_exit in ["detach", "keep"] {
            let arguments = ["--ingress", ingress, "--on-exit", on_exit];
            let attached = Attached::start(host, trunk, &arguments).unwrap();
            assert_ne!(shown(host, trunk), before);
            attached.stop().unwrap();
            detach(host, trunk).unwrap();
            let start = Instant::now();
            // The kernel frees programs and maps after a grace period.
            while shown(host, trunk) != before {
                if start.elapsed() > Duration::from_secs(20) {
                    assert_eq!(
                        shown(host, trunk),
                        before,
                        "by {ingress}, --on-exit {on_exit}"
                    );
                }
                thread::sleep(Duration::from_millis(200));
            }
        }
    }
}

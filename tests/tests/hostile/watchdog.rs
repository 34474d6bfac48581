//! A process that hangs is noticed, and the next process takes over.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::sys::signal::{Signal, kill};
use vlanfast_tests::{
    fixtures::macvlans::{attach, container},
    net::{
        capture::Packets,
        namespace::{Netns, in_netns},
        packet::{ROUTER_MAC, frame},
        tally::CounterKey,
        topology::{WIRE, Wire},
    },
    require,
    run::{
        crash::killed_after,
        netlink_stall::NetlinkStall,
        program::{Attached, detach, vlanfast},
        prometheus::get,
        supervisor::{Supervisor, Watched},
    },
};

/// This is longer than anything takes under emulation.
const PATIENCE: Duration = Duration::from_secs(60);
/// The watchdog interval of these tests. The process reports every second.
const WATCHDOG: Duration = Duration::from_secs(6);

/// Makes a change that has the process send a netlink request.
fn provoke(wire: &Wire, number: usize) {
    let line = format!("ip link set {} alias change{number}", wire.trunk);
    wire.host.run(&line).unwrap();
}

fn attach_under(supervisor: &Supervisor, watched: Watched, wire: &Wire, more: &[&str]) -> Attached {
    let program = supervisor.program(watched, WATCHDOG).unwrap();
    let arguments = [&["--docker", "off"], more].concat();
    Attached::start_by(program, &wire.host, &wire.trunk, &arguments).unwrap()
}

fn heartbeat(attached: &Attached) -> String {
    let status = attached.status().unwrap();
    status["heartbeat"].as_str().unwrap().to_owned()
}

fn becomes(attached: &Attached, expected: &str) {
    let start = Instant::now();
    while heartbeat(attached) != expected {
        assert!(start.elapsed() < PATIENCE, "never {expected}");
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn requests_to_a_stalled_netlink_are_swallowed_until_it_resumes() {
    require!("stall", nix::unistd::geteuid().is_root(), "needs root");
    let wire = Wire::veth().unwrap();
    let attached = attach(&wire, &[]);
    let stalled = NetlinkStall::attach(attached.pid()).unwrap();
    provoke(&wire, 0);
    thread::sleep(Duration::from_millis(500));
    assert_eq!(stalled.swallowed(), 0, "nothing is stalled yet");
    stalled.stall();
    provoke(&wire, 1);
    let start = Instant::now();
    while stalled.swallowed() == 0 {
        assert!(start.elapsed() < PATIENCE, "nothing was asked");
        thread::sleep(Duration::from_millis(20));
    }
    stalled.resume();
    let swallowed = stalled.swallowed();
    provoke(&wire, 2);
    thread::sleep(Duration::from_millis(500));
    assert_eq!(stalled.swallowed(), swallowed, "it has resumed");
    // Waiting for the process to end works while it is traced.
    attached.kill().unwrap();
}

#[test]
fn ready_is_reported_after_attaching_and_not_before() {
    require!("ready", nix::unistd::geteuid().is_root(), "needs root");
    let wire = Wire::veth().unwrap();
    for supervisor in [
        Supervisor::at_path().unwrap(),
        Supervisor::at_name(&wire.host).unwrap(),
    ] {
        let program = supervisor.program(Watched::Itself, WATCHDOG).unwrap();
        let mut step = 1;
        // Each process takes over what the previous one has left, and the last one attaches completely.
        let kill_after = |step| {
            let mut command = wire.host.command(&program);
            command.args(["attach", &wire.trunk, "--docker", "off", "--metrics", "off"]);
            killed_after(&mut command, step).unwrap()
        };
        while let Some(name) = kill_after(step) {
            let said = supervisor.next(Duration::from_millis(1)).unwrap();
            assert_eq!(said, None, "after step {step}, {name}");
            step += 4;
        }
        assert!(step > 16, "it has more to do than that");
        let said = supervisor.next(PATIENCE).unwrap().unwrap();
        assert_eq!(said, "READY=1\nSTATUS=attached, tables in sync");
        // A process that fails never reports that it is ready.
        let absent = wire
            .host
            .command(&program)
            .args(["attach", "vfnone"])
            .output();
        assert_eq!(absent.unwrap().status.code(), Some(4));
        assert_eq!(supervisor.next(Duration::from_millis(1)).unwrap(), None);
        detach(&wire.host, &wire.trunk).unwrap();
    }
}

#[test]
fn signs_of_life_keep_coming_until_it_ends_in_order() {
    require!("signs", nix::unistd::geteuid().is_root(), "needs root");
    let wire = Wire::veth().unwrap();
    for supervisor in [
        Supervisor::at_path().unwrap(),
        Supervisor::at_name(&wire.host).unwrap(),
    ] {
        let attached = attach_under(&supervisor, Watched::Itself, &wire, &["--metrics", "off"]);
        supervisor.hears("READY=1");
        for _ in 0..3 {
            assert_eq!(supervisor.hears("WATCHDOG=1"), "WATCHDOG=1");
        }
        attached.stop().unwrap();
        supervisor.hears("STOPPING=1");
        assert_eq!(supervisor.next(Duration::from_millis(1)).unwrap(), None);
    }
}

#[test]
fn a_watchdog_for_another_process_or_none_is_not_fed() {
    require!("unwatched", nix::unistd::geteuid().is_root(), "needs root");
    let wire = Wire::veth().unwrap();
    for watched in [Watched::Other, Watched::Nobody] {
        let supervisor = Supervisor::at_path().unwrap();
        let attached = attach_under(&supervisor, watched, &wire, &["--metrics", "off"]);
        supervisor.hears("READY=1");
        let said = supervisor.next(Duration::from_secs(3)).unwrap();
        assert_eq!(said, None, "{watched:?}");
        attached.stop().unwrap();
        supervisor.hears("STOPPING=1");
    }
}

#[test]
fn a_supervisor_that_is_gone_is_no_failure() {
    require!("gone", nix::unistd::geteuid().is_root(), "needs root");
    let wire = Wire::veth().unwrap();
    let supervisor = Supervisor::at_path().unwrap();
    let attached = attach_under(&supervisor, Watched::Itself, &wire, &["--metrics", "off"]);
    supervisor.hears("WATCHDOG=1");
    // The supervisor's directory goes too, and with it the script of this test, so another process runs `status`.
    drop(supervisor);
    thread::sleep(Duration::from_secs(5));
    let status = vlanfast(&wire.host, &["status", &wire.trunk]).unwrap();
    assert!(status.stdout.contains("heartbeat alive"), "{status:?}");
    attached.stop().unwrap();
}

/// With hidden tags the tables cannot be trusted: the programs do not act on them, `status` reports it, and a restart
/// would not help.
#[test]
fn a_process_that_withholds_the_heartbeat_on_purpose_is_healthy() {
    require!("withheld", nix::unistd::geteuid().is_root(), "needs root");
    let wire = Wire::veth().unwrap().keeping_tags();
    let wire = wire.unwrap();
    let supervisor = Supervisor::at_path().unwrap();
    let more = ["--ingress", "xdp", "--metrics", "127.0.0.1:9436"];
    let attached = attach_under(&supervisor, Watched::Itself, &wire, &more);
    let ask =
        |target: &'static str| in_netns(&wire.host.path(), move || get(9436, target)).unwrap();
    let alive = |number| {
        let (_, metrics) = ask("/metrics");
        let trunk = &wire.trunk;
        let line = format!("\nvlanfast_heartbeat_alive{{trunk=\"{trunk}\"}} {number}\n");
        assert!(metrics.contains(&line), "{metrics}");
    };
    alive(1);
    assert_eq!(ask("/live").0, 200);
    let switch = |to| {
        let line = format!("ethtool -K {} rxvlan {to}", wire.trunk);
        wire.host.run(&line).unwrap();
    };
    switch("on");
    supervisor.hears("STATUS=attached, but the device hides VLAN tags");
    becomes(&attached, "expired");
    alive(0);
    assert_eq!(ask("/live").0, 503);
    supervisor.forget();
    for _ in 0..3 {
        supervisor.hears("WATCHDOG=1");
    }
    alive(0);
    switch("off");
    supervisor.hears("STATUS=attached, tables in sync");
    becomes(&attached, "alive");
    alive(1);
    assert_eq!(ask("/live").0, 200);
    attached.stop().unwrap();
}

#[test]
fn a_stopped_process_is_noticed_and_the_next_takes_over_without_loss() {
    require!("stopped", nix::unistd::geteuid().is_root(), "needs root");
    is_replaced(|_, attached, supervisor| {
        kill(attached.pid(), Signal::SIGSTOP).unwrap();
        supervisor.forget();
        supervisor.misses_it(WATCHDOG);
        attached.kill().unwrap();
    });
}

#[test]
fn a_stalled_netlink_is_noticed_and_the_next_takes_over_without_loss() {
    require!("stalled", nix::unistd::geteuid().is_root(), "needs root");
    is_replaced(|wire, attached, supervisor| {
        let stalled = NetlinkStall::attach(attached.pid()).unwrap();
        stalled.stall();
        let noticed = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                for number in 0.. {
                    if noticed.load(Ordering::Relaxed) {
                        break;
                    }
                    provoke(wire, number);
                    thread::sleep(Duration::from_secs(1));
                }
            });
            supervisor.misses_it(WATCHDOG);
            noticed.store(true, Ordering::Relaxed);
        });
        assert!(stalled.swallowed() > 0, "nothing was asked");
        attached.kill().unwrap();
    });
}

/// Has a process hang and be killed while frames cross its trunk in both directions, and starts the next one.
fn is_replaced(hang_and_kill: impl FnOnce(&Wire, Attached, &Supervisor)) {
    let wire = Wire::veth().unwrap();
    let container = container(&wire, "mv0", "192.0.2.10");
    let supervisor = Supervisor::at_path().unwrap();
    let quiet = ["--metrics", "off"];
    let attached = attach_under(&supervisor, Watched::Itself, &wire, &quiet);
    supervisor.hears("WATCHDOG=1");
    let flows = Flows::start(&wire, &container);
    supervisor.hears("WATCHDOG=1");
    hang_and_kill(&wire, attached, &supervisor);
    // Without a daemon, every frame is passed.
    thread::sleep(Duration::from_secs(1));
    supervisor.forget();
    let next = attach_under(&supervisor, Watched::Itself, &wire, &quiet);
    supervisor.hears("READY=1");
    supervisor.hears("WATCHDOG=1");
    let (into, out) = flows.stop();
    println!("figure: while a process hung, was killed and replaced: in {into:?}, out {out:?}");
    for flow in into.iter().chain(&out) {
        assert!(flow.sent > 1_000, "{flow:?}");
        assert_eq!(flow.arrived, flow.sent, "{flow:?}");
    }
    let (rx, tx) = next.counters().unwrap();
    let unicast = |sums: &vlanfast_tests::net::tally::Sums| sums[&CounterKey::Vlan(0)].packets[0];
    let seen = |flows: &[Flow; 2]| flows[0].seen + flows[1].seen;
    assert_eq!(
        (unicast(&rx), unicast(&tx)),
        (into[0].sent + into[1].sent, seen(&out))
    );
    becomes(&next, "alive");
    next.stop().unwrap();
}

/// The frames of one IP version in one direction: sent and arrived.
#[derive(Debug)]
struct Flow {
    sent: u64,
    /// How often the sender's egress hook saw them; see `Packets::send_steadily`.
    seen: u64,
    arrived: u64,
}

/// IPv4 and IPv6 frames between the wire and a container, at a rate that leaves CPU time for other work.
struct Flows {
    sending: Arc<AtomicBool>,
    ways: [Way; 2],
}

struct Way {
    senders: [JoinHandle<(u64, u64)>; 2],
    arriving: Packets,
}

const RATE: u64 = 200;
const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];

/// Builds a UDP datagram of an IP version with a zero checksum, so that no station answers.
fn datagram(ether_type: [u8; 2]) -> Vec<u8> {
    let addresses = |length| [vec![0x20; length], vec![0x21; length]].concat();
    let header = match ether_type {
        IPV4 => [
            &[0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17, 0, 0][..],
            &addresses(4),
        ]
        .concat(),
        _ => [&[0x60, 0, 0, 0, 0, 26, 17, 64][..], &addresses(16)].concat(),
    };
    [
        &ether_type[..],
        &header,
        &[0x23, 0x28, 0x23, 0x28, 0, 26, 0, 0],
        &[0; 18],
    ]
    .concat()
}

impl Flows {
    fn start(wire: &Wire, container: &Netns) -> Self {
        let sending = Arc::new(AtomicBool::new(true));
        let mac = container.mac("mv0").unwrap();
        let start = |netns: &Netns, device: &str, make: &dyn Fn([u8; 2]) -> Vec<u8>| {
            [IPV4, IPV6].map(|ether_type| {
                let socket = Packets::open(&netns.path(), device, false).unwrap();
                socket.send_steadily(make(ether_type), RATE, sending.clone())
            })
        };
        let arriving =
            |netns: &Netns, device: &str| Packets::open(&netns.path(), device, true).unwrap();
        let (inside, outside) = (arriving(container, "mv0"), arriving(&wire.router, WIRE));
        let into = start(&wire.router, WIRE, &|ether_type| {
            frame(mac, &datagram(ether_type), 60)
        });
        let out = start(container, "mv0", &|ether_type| {
            let mut bytes = frame(ROUTER_MAC, &datagram(ether_type), 60);
            bytes[6..12].copy_from_slice(&mac);
            bytes
        });
        let ways = [(into, inside), (out, outside)];
        Self {
            sending,
            ways: ways.map(|(senders, arriving)| Way { senders, arriving }),
        }
    }

    /// Returns the counts of ingress and egress, each by IP version.
    fn stop(self) -> ([Flow; 2], [Flow; 2]) {
        self.sending.store(false, Ordering::Relaxed);
        let [into, out] = self.ways;
        let sent =
            [into.senders, out.senders].map(|pair| pair.map(|sender| sender.join().unwrap()));
        thread::sleep(Duration::from_secs(1));
        let flows = |sent: [(u64, u64); 2], arriving: Packets| {
            let frames = arriving.incoming().unwrap();
            let [four, six] = sent;
            [(four, IPV4), (six, IPV6)].map(|((sent, seen), ether_type)| {
                let ours = frames.iter().filter(|frame| frame[12..14] == ether_type);
                let arrived = ours.count() as u64;
                Flow {
                    sent,
                    seen,
                    arrived,
                }
            })
        };
        let [first, second] = sent;
        (flows(first, into.arriving), flows(second, out.arriving))
    }
}

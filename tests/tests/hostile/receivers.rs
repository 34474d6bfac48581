//! Receivers that no device shows: they are in a hidden namespace, or answer for others. The tests also cover devices
//! that appear with addresses of others.

use std::{
    fs::File,
    net::UdpSocket,
    os::fd::AsRawFd,
    process::{Child, Command},
    thread,
    time::Duration,
};

use nix::sched::{CloneFlags, unshare};
use serde_json::Value;
use vlanfast_tests::{
    fixtures::{
        macvlans::{attach, container},
        one_vlan::request,
    },
    in_the_lab,
    net::{
        capture::Packets,
        namespace::{Netns, in_netns, run},
        ping::{is_whole, ping},
        topology::{WIRE, Wire},
    },
    require,
    run::{
        observe::{endpoint, eventually, listeners},
        program::{Attached, vlanfast},
    },
};

/// The time that a test waits to see that nothing arrives; it is longer than the interval between two checks.
pub const QUIET: Duration = Duration::from_millis(2500);

/// A namespace without an id and without a mount.
enum Hidden {
    /// Only a descriptor of this process keeps the namespace.
    File(File),
    /// A process is in the namespace.
    Process(Child),
}

impl Hidden {
    fn file() -> Self {
        Self::made(|| Self::File(File::open("/proc/thread-self/ns/net").unwrap()))
    }

    fn process() -> Self {
        Self::made(|| Self::Process(Command::new("sleep").arg("1000").spawn().unwrap()))
    }

    /// Creates the namespace with a thread that moves there.
    fn made(make: impl FnOnce() -> Self + Send + 'static) -> Self {
        let made = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            make()
        });
        made.join().unwrap()
    }

    fn path(&self) -> String {
        match self {
            Self::File(file) => format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()),
            Self::Process(child) => format!("/proc/{}/ns/net", child.id()),
        }
    }

    fn run(&self, line: &str) -> String {
        run(&format!("nsenter --net={} sh -c '{line}'", self.path())).unwrap()
    }

    /// Gives the namespace a macvlan, as `systemd-nspawn --network-macvlan` does.
    fn join(&self, wire: &Wire, parent: &str, address: &str) {
        self.run(
            "for it in all default; do echo 1 >/proc/sys/net/ipv6/conf/$it/disable_ipv6; done",
        );
        let path = self.path();
        wire.host
            .run(&format!(
                "ip link add link {parent} name e0 netns {path} type macvlan mode bridge"
            ))
            .unwrap();
        self.run(&format!(
            "ip addr add {address}/24 dev e0 && ip link set e0 up"
        ));
    }

    fn received(&self) -> u64 {
        let text = self.run("ip -s -j link show e0");
        let json: Value = serde_json::from_str(&text).unwrap();
        json[0]["stats64"]["rx"]["packets"].as_u64().unwrap()
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        if let Self::Process(child) = self {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Creates a wire with an address for the router, on the trunk or a VLAN.
pub fn wire(device: &str) -> Wire {
    let wire = Wire::veth().unwrap();
    if let Some(vid) = device.strip_prefix(&format!("{WIRE}.")) {
        wire.vlan(vid.parse().unwrap()).unwrap();
    }
    let line = format!("ip addr add 192.0.2.1/24 dev {device}");
    wire.router.run(&line).unwrap();
    wire
}

/// Sends requests for an absent host; returns how many of them reach a hidden device.
fn storm(wire: &Wire, hidden: &Hidden) -> u64 {
    let before = hidden.received();
    let socket = Packets::open(&wire.router.path(), WIRE, false).unwrap();
    for _ in 0..300 {
        socket.send(&request([192, 0, 2, 200])).unwrap();
        thread::sleep(Duration::from_millis(1));
    }
    thread::sleep(Duration::from_millis(200));
    hidden.received() - before
}

fn warnings(attached: &Attached) -> String {
    attached.status().unwrap()["warnings"].to_string()
}

pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

#[test]
fn a_hidden_receiver_loses_no_frames() {
    require!("hidden", is_root(), "needs root");
    let wire = wire(WIRE);
    let hidden = Hidden::file();
    hidden.join(&wire, &wire.trunk, "192.0.2.77");
    assert_eq!(storm(&wire, &hidden), 300, "without vlanfast");
    let attached = attach(&wire, &["--storm-limit", "20"]);
    listeners(&attached, 0, &["unseen"]);
    assert_eq!(storm(&wire, &hidden), 300);
    assert!(warnings(&attached).contains("no network namespace shows"));
    let text = vlanfast(&wire.host, &["status", &wire.trunk])
        .unwrap()
        .stdout;
    let line = "no storm limit: a receiver that no network namespace shows";
    assert!(text.contains(line), "{text}");
    // The first hidden receiver goes away, and another comes between two checks.
    hidden.run("ip link del e0");
    listeners(&attached, 0, &[]);
    assert_eq!(warnings(&attached), "[]");
    hidden.join(&wire, &wire.trunk, "192.0.2.77");
    listeners(&attached, 0, &["unseen"]);
    hidden.run("ip link set e0 down");
    listeners(&attached, 0, &[]);
    attached.stop().unwrap();
    hidden.run("ip link set e0 up");
    let ended = vlanfast(&wire.host, &["attach", &wire.trunk, "--shed", "mac"]).unwrap();
    assert_eq!(ended.code, Some(4), "{}", ended.stderr);
    assert!(ended.stderr.contains("no network namespace shows"));
}

#[test]
fn the_namespace_of_a_process_is_found_and_is_like_any_other() {
    require!("process", is_root(), "needs root");
    let wire = wire(WIRE);
    let early = Hidden::process();
    early.join(&wire, &wire.trunk, "192.0.2.76");
    // This process starts before vlanfast attaches, so that shedding can be enabled.
    let attached = attach(&wire, &["--shed", "mac", "--storm-limit", "20"]);
    eventually("the first", &attached, |rows| rows.len() == 1);
    listeners(&attached, 0, &[]);
    let late = Hidden::process();
    late.join(&wire, &wire.trunk, "192.0.2.77");
    eventually("both", &attached, |rows| {
        let has = |address| rows.iter().any(|row| row["addresses"][0] == address);
        has("192.0.2.76") && has("192.0.2.77")
    });
    listeners(&attached, 0, &[]);
    assert!(storm(&wire, &late) < 300, "the limit is on again");
    drop(late);
    eventually("one of them gone", &attached, |rows| rows.len() == 1);
    attached.stop().unwrap();
}

/// Joins an IPv6 group on a device, until the socket is dropped.
fn join(netns: &Netns, device: &str, group: &str) -> UdpSocket {
    let (device, group) = (device.to_owned(), group.parse().unwrap());
    let socket = in_netns(&netns.path(), move || {
        let index = nix::net::if_::if_nametoindex(device.as_str())?;
        let socket = UdpSocket::bind("[::]:0")?;
        socket.join_multicast_v6(&group, index)?;
        Ok(socket)
    });
    socket.unwrap()
}

#[test]
fn a_solicited_node_group_without_an_address_means_a_proxy() {
    require!("group", is_root(), "needs root");
    let wire = Wire::veth().unwrap();
    let (host, trunk) = (&wire.host, &wire.trunk);
    let attached = attach(&wire, &[]);
    // A proxy joins this group whether or not it has a device (MetalLB, `proxy_ndp`).
    let joined = join(host, trunk, "ff02::1:ff01:203");
    listeners(&attached, 0, &["unseen"]);
    drop(joined);
    listeners(&attached, 0, &[]);
    // Other groups do not indicate a proxy.
    host.run(&format!("ip maddr add 33:33:00:00:00:fb dev {trunk}"))
        .unwrap();
    thread::sleep(QUIET);
    listeners(&attached, 0, &[]);
    // A container that adds an address joins the address's group first.
    let inside = container(&wire, "mv0", "192.0.2.10");
    inside
        .run("echo 0 >/proc/sys/net/ipv6/conf/mv0/disable_ipv6; ip addr add fd00::10/64 dev mv0")
        .unwrap();
    thread::sleep(2 * QUIET);
    listeners(&attached, 0, &[]);
    // Nor does a container disable its neighbours' limit by joining another group.
    let _joined = join(&inside, "mv0", "ff02::1:ff01:203");
    thread::sleep(2 * QUIET);
    listeners(&attached, 0, &[]);
    inside.run("ip addr del fd00::10/64 dev mv0").unwrap();
    thread::sleep(QUIET);
    listeners(&attached, 0, &[]);
    attached.stop().unwrap();
}

#[test]
fn a_device_that_is_down_does_not_disturb_others() {
    require!("down", is_root(), "needs root");
    let wire = wire(WIRE);
    let (host, trunk) = (&wire.host, &wire.trunk);
    host.run(&format!("ip addr add 192.0.2.5/24 dev {trunk}"))
        .unwrap();
    let victim = container(&wire, "mv0", "192.0.2.10");
    let mac = victim
        .mac("mv0")
        .unwrap()
        .map(|it| format!("{it:02x}"))
        .join(":");
    // The kernel allows such a device to be created, but never to be set up.
    let twin = Netns::new().unwrap();
    host.run(&format!(
        "ip link add link {trunk} name mv1 address {mac} type macvlan mode bridge && \
         ip link set mv1 netns {}",
        twin.name
    ))
    .unwrap();
    assert!(twin.run("ip link set mv1 up").is_err());
    let reaches = || is_whole(&ping(&wire.router, "192.0.2.10", 5, "").unwrap());
    assert!(reaches(), "without vlanfast");
    let attached = attach(&wire, &["--host-access", "0", "--storm-limit", "20"]);
    eventually("two rows", &attached, |rows| {
        let row = |device| endpoint(rows, device);
        let (Some(victim), Some(twin)) = (row("mv0"), row("mv1")) else {
            return false;
        };
        victim["mac"] == twin["mac"]
            && (&victim["conflict"], &victim["up"]) == (&Value::from(false), &Value::from(true))
            && (&twin["conflict"], &twin["up"]) == (&Value::from(false), &Value::from(false))
            && victim["addresses"][0] == "192.0.2.10"
    });
    assert!(reaches());
    assert!(is_whole(&ping(host, "192.0.2.10", 5, "").unwrap()));
    attached.stop().unwrap();
}

#[test]
fn two_endpoints_that_claim_one_address_are_both_shown() {
    require!("claims", is_root(), "needs root");
    let wire = wire(WIRE);
    let victim = container(&wire, "mv0", "192.0.2.10");
    let other = container(&wire, "mv1", "192.0.2.11");
    other.run("ip addr add 192.0.2.10/24 dev mv1").unwrap();
    let line = "for it in $(seq 2 250); do ip addr add 198.51.100.$it/32 dev mv1; done";
    other.run(line).unwrap();
    let attached = attach(&wire, &[]);
    eventually("both rows", &attached, |rows| {
        let is_in_conflict = |device, address: &str| {
            endpoint(rows, device).is_some_and(|row| {
                let addresses = row["addresses"].as_array().unwrap();
                row["conflict"] == true && addresses.iter().any(|it| it == address)
            })
        };
        is_in_conflict("mv0", "192.0.2.10")
            && is_in_conflict("mv1", "192.0.2.10")
            && is_in_conflict("mv1", "192.0.2.11")
    });
    let arguments = ["endpoints", &wire.trunk, "--docker", "off"];
    let text = vlanfast(&wire.host, &arguments).unwrap().stdout;
    assert!(text.contains("+248 more"), "{text}");
    assert!(text.lines().all(|line| line.len() < 250), "{text}");
    victim.run("ip addr del 192.0.2.10/24 dev mv0").unwrap();
    eventually("no conflict", &attached, |rows| {
        rows.len() == 2 && rows.iter().all(|row| row["conflict"] == false)
    });
    attached.stop().unwrap();
}

/// The frames are tagged, which needs 802.1Q; only the lab has it for certain.
mod tagged {
    use super::*;

    #[test]
    fn what_is_hidden_on_a_vlan_is_not_shed() {
        in_the_lab!("hidden on a VLAN");
        let wire = wire("wire.10");
        let trunk = &wire.trunk;
        let hidden = Hidden::file();
        hidden.join(&wire, &format!("{trunk}.10"), "192.0.2.77");
        let reaches = || is_whole(&ping(&wire.router, "192.0.2.77", 5, "").unwrap());
        assert!(reaches(), "without vlanfast");
        let attached = attach(&wire, &["--shed", "mac"]);
        listeners(&attached, 10, &["unseen"]);
        listeners(&attached, 0, &[]);
        assert!(reaches());
        attached.stop().unwrap();
    }
}

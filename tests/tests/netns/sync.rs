//! The maps follow the kernel: whatever way a macvlan comes, changes and goes, and whoever made it.
//! On the trunk itself (VLAN 0), so that no 8021q is needed; `sync.rs` of level `vm` has the rest.

use std::{
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::{Signal, kill};
use serde_json::Value;
use vlanfast_tests::{
    program::{Attached, vlanfast},
    require,
    sync::{Taker, endpoint, eventually},
    topology::{Netns, Wire, unique},
};

fn attach(wire: &Wire, more: &[&str]) -> Attached {
    let arguments = [&["--docker", "off", "--metrics", "off"], more].concat();
    Attached::start(&wire.host, &wire.trunk, &arguments).unwrap()
}

/// A container as Docker makes it: a macvlan that is made in the host and moved, with an address.
fn container(wire: &Wire, name: &str, address: &str) -> Netns {
    let container = Netns::new().unwrap();
    wire.host
        .run(&format!(
            "ip link add link {} name {name} type macvlan mode bridge && \
             ip link set {name} netns {}",
            wire.trunk, container.name
        ))
        .unwrap();
    container
        .run(&format!(
            "ip addr add {address}/24 dev {name} && ip link set {name} up"
        ))
        .unwrap();
    container
}

fn mac(netns: &Netns, device: &str) -> String {
    let text = netns.run(&format!("cat /sys/class/net/{device}/address"));
    // sysfs shows the namespace of whoever mounted it.
    let text =
        text.or_else(|_| netns.run(&format!("ip -br link show {device} | awk '{{print $3}}'")));
    text.unwrap().trim().to_owned()
}

#[test]
fn a_macvlan_is_seen_whatever_way_it_comes() {
    require!("ways", nix::unistd::geteuid().is_root(), "needs root");
    let wire = Wire::veth().unwrap();
    let (host, trunk) = (&wire.host, &wire.trunk);
    // One is there before.
    let _before = container(&wire, "before", "192.0.2.10");
    let attached = attach(&wire, &[]);
    let _moved = container(&wire, "moved", "192.0.2.11");
    // As CNI and Podman do it: made in place, so that no id comes of it.
    let placed = Netns::new().unwrap();
    host.run(&format!(
        "ip link add link {trunk} netns {} name placed address 02:00:00:00:01:02 type macvlan mode private",
        placed.name
    ))
    .unwrap();
    placed
        .run("ip addr add 192.0.2.12/24 dev placed && ip link set placed up")
        .unwrap();
    // Through a namespace to another, which has no id in ours.
    let (outer, inner) = (Netns::new().unwrap(), Netns::new().unwrap());
    host.run(&format!(
        "ip link add link {trunk} name nested type macvlan mode vepa && ip link set nested netns {}",
        outer.name
    ))
    .unwrap();
    outer
        .run(&format!("ip link set nested netns {}", inner.name))
        .unwrap();
    inner
        .run("ip addr add 192.0.2.13/24 dev nested && ip link set nested up")
        .unwrap();
    // A virtual machine's.
    host.run(&format!(
        "ip link add link {trunk} name vm0 type macvtap mode bridge && ip link set vm0 up"
    ))
    .unwrap();
    eventually("all five", &attached, |endpoints| {
        let mode = |name, address, mode: &str| {
            endpoint(endpoints, name).is_some_and(|row| {
                row["mode"] == mode
                    && row["vlan"] == 0
                    && row["addresses"][0] == address
                    && row["nsid"].is_number()
            })
        };
        endpoints.len() == 5
            && mode("before", "192.0.2.10", "bridge")
            && mode("moved", "192.0.2.11", "bridge")
            && mode("placed", "192.0.2.12", "private")
            && mode("nested", "192.0.2.13", "vepa")
            && endpoint(endpoints, "vm0")
                .is_some_and(|row| row["kind"] == "macvtap" && row["nsid"].is_null())
    });
    drop(inner);
    eventually(
        "the nested one gone with its namespace",
        &attached,
        |endpoints| endpoints.len() == 4 && endpoint(endpoints, "nested").is_none(),
    );
    attached.stop().unwrap();
}

#[test]
fn what_changes_inside_a_container_is_followed() {
    require!("inside", nix::unistd::geteuid().is_root(), "needs root");
    let wire = Wire::veth().unwrap();
    let attached = attach(&wire, &[]);
    let inside = container(&wire, "mv0", "192.0.2.10");
    for conf in ["all", "default", "mv0"] {
        inside
            .run(&format!(
                "echo 0 >/proc/sys/net/ipv6/conf/{conf}/disable_ipv6"
            ))
            .unwrap();
    }
    inside
        .run("ip addr add 2001:db8::10/64 dev mv0 nodad && ip addr add 198.51.100.7/24 dev mv0")
        .unwrap();
    let has = |row: &Value, wanted: &str| {
        row["addresses"]
            .as_array()
            .unwrap()
            .iter()
            .any(|one| one == wanted)
    };
    eventually(
        "secondary addresses of both kinds",
        &attached,
        |endpoints| {
            endpoint(endpoints, "mv0").is_some_and(|row| {
                ["192.0.2.10", "198.51.100.7", "2001:db8::10"]
                    .iter()
                    .all(|wanted| has(row, wanted))
            })
        },
    );
    inside.run("ip addr del 198.51.100.7/24 dev mv0").unwrap();
    inside
        .run("ip link set mv0 address 02:00:00:00:05:05")
        .unwrap();
    eventually("another MAC and an address less", &attached, |endpoints| {
        endpoints.len() == 1
            && endpoint(endpoints, "mv0").is_some_and(|row| {
                row["mac"] == "02:00:00:00:05:05"
                    && !has(row, "198.51.100.7")
                    && has(row, "192.0.2.10")
            })
    });
    inside
        .run("ip link set mv0 down && ip link set mv0 name eth9 && ip link set eth9 up")
        .unwrap();
    eventually("another name", &attached, |endpoints| {
        endpoint(endpoints, "eth9").is_some()
    });
    inside.run("ip link del eth9").unwrap();
    eventually("none", &attached, <[Value]>::is_empty);
    attached.stop().unwrap();
}

#[test]
fn a_mac_or_address_that_two_have_is_shown_as_a_conflict() {
    require!("conflict", nix::unistd::geteuid().is_root(), "needs root");
    let wire = Wire::veth().unwrap();
    let attached = attach(&wire, &[]);
    let (one, two) = (
        container(&wire, "one", "192.0.2.10"),
        container(&wire, "two", "192.0.2.10"),
    );
    eventually("an address in conflict", &attached, |endpoints| {
        endpoints.len() == 2 && endpoints.iter().any(|row| row["conflict"] == true)
    });
    two.run("ip addr flush dev two && ip addr add 192.0.2.11/24 dev two")
        .unwrap();
    eventually("peace", &attached, |endpoints| {
        endpoints.len() == 2 && endpoints.iter().all(|row| row["conflict"] == false)
    });
    // Two macvlans can't have one MAC, but the trunk may take one of theirs.
    wire.host
        .run(&format!(
            "ip link set {} address {}",
            wire.trunk,
            mac(&one, "one")
        ))
        .unwrap();
    eventually("a MAC in conflict", &attached, |endpoints| {
        endpoints.len() == 2
            && endpoint(endpoints, "one").is_some_and(|row| row["conflict"] == true)
            && endpoint(endpoints, "two").is_some_and(|row| row["conflict"] == false)
    });
    attached.stop().unwrap();
}

#[test]
fn the_trunk_may_go_down_come_up_and_change_its_name() {
    require!("trunk", nix::unistd::geteuid().is_root(), "needs root");
    let mut wire = Wire::veth().unwrap();
    let mut attached = attach(&wire, &[]);
    let _container = container(&wire, "mv0", "192.0.2.10");
    eventually("the endpoint", &attached, |endpoints| endpoints.len() == 1);
    let (host, trunk) = (&wire.host, &wire.trunk);
    host.run(&format!("ip link set {trunk} down")).unwrap();
    thread::sleep(Duration::from_millis(300));
    let renamed = unique();
    host.run(&format!(
        "ip link set {trunk} name {renamed} && ip link set {renamed} up"
    ))
    .unwrap();
    attached.trunk = renamed.clone();
    let start = Instant::now();
    while attached.status().is_err() {
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "status knows no {renamed}"
        );
        thread::sleep(Duration::from_millis(20));
    }
    wire.trunk = renamed.clone();
    let _later = container(&wire, "mv1", "192.0.2.11");
    eventually(
        "both endpoints under the new name",
        &attached,
        |endpoints| {
            endpoints.len() == 2 && endpoints.iter().all(|row| row["trunk"] == renamed.as_str())
        },
    );
    attached.stop().unwrap();
}

#[test]
fn a_trunk_that_is_gone_ends_the_process_and_leaves_no_pin() {
    require!("gone", nix::unistd::geteuid().is_root(), "needs root");
    let wire = Wire::veth().unwrap();
    let attached = attach(&wire, &[]);
    wire.host
        .run(&format!("ip link del {}", wire.trunk))
        .unwrap();
    let ended = attached.end().unwrap();
    assert_eq!(ended.code, Some(4), "{}", ended.stderr);
    assert!(ended.stderr.contains("is gone"), "{}", ended.stderr);
    assert!(!vlanfast_tests::program::is_pinned(&wire.trunk));
}

#[test]
fn a_full_map_says_so_passes_the_rest_and_heals() {
    require!("full", nix::unistd::geteuid().is_root(), "needs root");
    let wire = Wire::veth().unwrap();
    // The host's own entry takes one of the four.
    let attached = attach(&wire, &["--max-endpoints", "4"]);
    let mut containers: Vec<_> = (0..5)
        .map(|n| container(&wire, &format!("mv{n}"), &format!("192.0.2.1{n}")))
        .collect();
    let left_out = |status: &Value| {
        let maps = status["maps"].as_array().unwrap();
        let map = maps.iter().find(|map| map["map"] == "ENDPOINTS").unwrap();
        (
            map["entries"].as_u64().unwrap(),
            map["capacity"].as_u64().unwrap(),
            map["left_out"].as_u64().unwrap(),
        )
    };
    let wait = |what: &str, expected| {
        let start = Instant::now();
        loop {
            let now = left_out(&attached.status().unwrap());
            if now == expected {
                break;
            }
            assert!(start.elapsed() < Duration::from_secs(10), "{what}: {now:?}");
            thread::sleep(Duration::from_millis(20));
        }
    };
    wait("two too many", (4, 4, 2));
    let text = vlanfast(&wire.host, &["status", &wire.trunk])
        .unwrap()
        .stdout;
    assert!(
        text.contains("FULL, 2 found no room") && text.contains("--max-endpoints"),
        "{text}"
    );
    // Those that are in the map must go for the others to come.
    containers.remove(0);
    wait("one too many", (4, 4, 1));
    containers.remove(0);
    wait("healed", (4, 4, 0));
    eventually("the three that are left", &attached, |endpoints| {
        endpoints.len() == 3
    });
    attached.stop().unwrap();
}

#[test]
fn events_that_find_no_room_cost_nothing_but_a_moment() {
    require!("overrun", nix::unistd::geteuid().is_root(), "needs root");
    let wire = Wire::veth().unwrap();
    let attached = attach(&wire, &[]);
    let inside = container(&wire, "mv0", "192.0.2.10");
    eventually("the endpoint", &attached, |endpoints| endpoints.len() == 1);
    // Far more events than the socket has room for, while nobody reads them.
    kill(attached.pid(), Signal::SIGSTOP).unwrap();
    let mut batch = String::new();
    for round in 0..12_000 {
        let action = if round % 2 == 0 { "add" } else { "del" };
        batch += &format!(
            "addr {action} 198.51.100.{}/32 dev mv0\n",
            round / 2 % 250 + 1
        );
    }
    batch += "link set mv0 address 02:00:00:00:06:06\n";
    let file = format!("/tmp/{}.batch", wire.trunk);
    std::fs::write(&file, batch).unwrap();
    inside.run(&format!("ip -batch {file}")).unwrap();
    std::fs::remove_file(&file).unwrap();
    let later = container(&wire, "mv1", "192.0.2.11");
    kill(attached.pid(), Signal::SIGCONT).unwrap();
    eventually("the truth", &attached, |endpoints| {
        endpoints.len() == 2
            && endpoint(endpoints, "mv1").is_some()
            && endpoint(endpoints, "mv0").is_some_and(|row| {
                row["mac"] == "02:00:00:00:06:06" && row["addresses"].as_array().unwrap().len() == 1
            })
    });
    drop(later);
    attached.stop().unwrap();
}

/// From an interface that is up in its namespace to its entry in the map.
#[test]
fn a_container_is_in_the_map_at_once() {
    require!("latency", nix::unistd::geteuid().is_root(), "needs root");
    const STARTS: usize = 200;
    let wire = Wire::veth().unwrap();
    let attached = attach(&wire, &[]);
    let map = Taker::open(&wire.trunk).unwrap();
    let (mut from_the_command, mut from_its_end) = (vec![], vec![]);
    for number in 0..STARTS {
        let container = Netns::new().unwrap();
        let mac = [2, 0, 0, 1, 0, number as u8];
        wire.host
            .run(&format!(
                "ip link add link {} name mv address 02:00:00:01:00:{number:02x} type macvlan mode bridge && \
                 ip link set mv netns {}",
                wire.trunk, container.name
            ))
            .unwrap();
        let address = format!("192.0.2.{}", number + 10);
        let command = Instant::now();
        container
            .run(&format!(
                "ip addr add {address}/24 dev mv && ip link set mv up"
            ))
            .unwrap();
        let end = Instant::now();
        while !map.has(0, mac, address.parse().unwrap()).unwrap() {
            assert!(
                end.elapsed() < Duration::from_secs(10),
                "container {number} never came"
            );
            thread::sleep(Duration::from_micros(100));
        }
        from_the_command.push(command.elapsed());
        from_its_end.push(end.elapsed());
    }
    for (took, from) in [
        (
            &mut from_its_end,
            "from the end of the command that brings an interface up",
        ),
        (&mut from_the_command, "from before that command"),
    ] {
        took.sort();
        println!(
            "figure: {from} to its entry in the map, {STARTS} containers: median {:.1} ms, 99th \
             percentile {:.1} ms",
            took[STARTS / 2].as_secs_f64() * 1e3,
            took[STARTS * 99 / 100].as_secs_f64() * 1e3,
        );
    }
    attached.stop().unwrap();
}

//! The tables stay in sync under difficult conditions: full maps, fast changes, and lost notifications.

use std::{
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::{Signal, kill};
use serde_json::Value;
use vlanfast::maps::tables::TableMaps;
use vlanfast_common::{Parent, Vid};
use vlanfast_tests::{
    fixtures::macvlans::{attach, container, placed},
    net::{namespace::Netns, topology::Wire},
    require,
    run::{
        observe::{endpoint, eventually},
        pinned_tables::PinnedTables,
        program::vlanfast,
        require::in_the_lab,
    },
};

use super::pins::opened;

#[test]
fn a_full_map_is_reported_passes_the_rest_and_recovers() {
    require!("full", nix::unistd::geteuid().is_root(), "needs root");
    let wire = Wire::veth().unwrap();
    // The host's own entry takes one of the four places.
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
    let lacks = || {
        let tables = TableMaps::open(&opened(&wire.trunk))
            .unwrap()
            .read()
            .unwrap();
        tables.vlans[&Vid::UNTAGGED].flags & Parent::LEFT_OUT
    };
    wait("two too many", (4, 4, 2));
    let noted = |expected| eventually("the note", &attached, |_| lacks() == expected);
    noted(Parent::LEFT_OUT);
    let text = vlanfast(&wire.host, &["status", &wire.trunk])
        .unwrap()
        .stdout;
    assert!(
        text.contains("FULL, 2 entries found no room") && text.contains("--max-endpoints"),
        "{text}"
    );
    // Entries in the map must go before others can be added.
    containers.remove(0);
    wait("one too many", (4, 4, 1));
    containers.remove(0);
    wait("healed", (4, 4, 0));
    noted(0);
    eventually("the three that are left", &attached, |endpoints| {
        endpoints.len() == 3
    });
    attached.stop().unwrap();
}

/// The kernel assigns the lowest free id, and reuses inodes: a new namespace may have the id and inode of a removed
/// one.
#[test]
fn containers_that_were_exchanged_unseen_are_told_apart() {
    require!("exchange", nix::unistd::geteuid().is_root(), "needs root");
    let wire = Wire::veth().unwrap();
    let attached = attach(&wire, &[]);
    let mut containers: Vec<_> = (0..3)
        .map(|n| container(&wire, &format!("old{n}"), &format!("192.0.2.1{n}")))
        .collect();
    eventually("three", &attached, |endpoints| endpoints.len() == 3);
    for round in 0..3 {
        kill(attached.pid(), Signal::SIGSTOP).unwrap();
        containers.clear();
        // The kernel dismantles a namespace, and frees its id, with a delay.
        thread::sleep(Duration::from_millis(500));
        containers = (0..3)
            .map(|n| {
                placed(
                    &wire,
                    &format!("new{n}"),
                    &format!("192.0.2.{}", 20 + 10 * round + n),
                )
            })
            .collect();
        kill(attached.pid(), Signal::SIGCONT).unwrap();
        eventually(
            "the three that came, and no other",
            &attached,
            |endpoints| {
                endpoints.len() == 3
                    && (0..3).all(|n| {
                        endpoint(endpoints, &format!("new{n}")).is_some_and(|row| {
                            row["addresses"][0] == format!("192.0.2.{}", 20 + 10 * round + n)
                        })
                    })
            },
        );
    }
    attached.stop().unwrap();
}

/// Returns the number of notifications that the listening process of a namespace has lost: the column Drops of
/// `/proc/net/netlink`, in the row whose groups are those of `netlink/events.rs`.
fn lost_events(netns: &Netns) -> u64 {
    let table = netns.run("cat /proc/net/netlink").unwrap();
    let mut rows = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    let row = rows
        .find(|row| row[3] == "08000119")
        .expect("vlanfast listens");
    row[8].parse().unwrap()
}

#[test]
fn lost_notifications_cost_only_a_moment() {
    require!("overrun", nix::unistd::geteuid().is_root(), "needs root");
    let wire = Wire::veth().unwrap();
    let attached = attach(&wire, &[]);
    let inside = container(&wire, "mv0", "192.0.2.10");
    eventually("the endpoint", &attached, |endpoints| endpoints.len() == 1);
    // There are far more notifications than the socket has room for, while the process does not read it.
    kill(attached.pid(), Signal::SIGSTOP).unwrap();
    let mut batch: String = (0..8_000)
        .map(|n| format!("link set mv0 alias a{n}\n"))
        .collect();
    batch += "link set mv0 address 02:00:00:00:06:06\naddr add 192.0.2.99/32 dev mv0\n";
    let file = format!("/tmp/{}.batch", wire.trunk);
    std::fs::write(&file, batch).unwrap();
    inside.run(&format!("ip -batch {file}")).unwrap();
    std::fs::remove_file(&file).unwrap();
    assert!(
        lost_events(&wire.host) > 0,
        "there was room for all of them"
    );
    let _later = container(&wire, "mv1", "192.0.2.11");
    kill(attached.pid(), Signal::SIGCONT).unwrap();
    eventually("the truth", &attached, |endpoints| {
        endpoints.len() == 2
            && endpoint(endpoints, "mv1").is_some()
            && endpoint(endpoints, "mv0").is_some_and(|row| {
                row["mac"] == "02:00:00:00:06:06" && row["addresses"].as_array().unwrap().len() == 2
            })
    });
    attached.stop().unwrap();
}

/// The test measures the time from a device that is up in its namespace to its entry in the map.
#[test]
fn a_container_is_in_the_map_at_once() {
    require!("latency", nix::unistd::geteuid().is_root(), "needs root");
    // Under emulation a start takes a second.
    let starts = if in_the_lab() { 30 } else { 200 };
    let wire = Wire::veth().unwrap();
    let attached = attach(&wire, &[]);
    let map = PinnedTables::open(&wire.trunk).unwrap();
    let (mut from_the_command, mut from_its_end) = (vec![], vec![]);
    for number in 0..starts {
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
            "figure: {from} to its entry in the map, {starts} containers: median {:.1} ms, 99th \
             percentile {:.1} ms",
            took[starts / 2].as_secs_f64() * 1e3,
            took[starts * 99 / 100].as_secs_f64() * 1e3,
        );
    }
    attached.stop().unwrap();
}

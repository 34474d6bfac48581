//! Level `vm`: the maps follow 802.1Q devices, bonds and Docker.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use vlanfast_tests::{
    in_the_lab,
    net::{
        capture::Packets,
        namespace::{Netns, run, unique},
        topology::Wire,
    },
    run::{
        docker::Docker,
        observe::{endpoint, eventually, listeners},
        program::{Attached, vlanfast},
    },
};

fn attach(host: &Netns, trunk: &str) -> Attached {
    Attached::start(host, trunk, &["--docker", "off", "--metrics", "off"]).unwrap()
}

/// Creates a macvlan on a parent and moves it into a namespace.
fn macvlan(host: &Netns, parent: &str, name: &str, into: &Netns, more: &str) {
    host.run(&format!(
        "ip link add link {parent} name {name} {more} type macvlan mode bridge && \
         ip link set {name} netns {}",
        into.name
    ))
    .unwrap();
    into.run(&format!("ip link set {name} up")).unwrap();
}

fn is_on(endpoints: &[Value], device: &str, vlan: u16) -> bool {
    endpoint(endpoints, device).is_some_and(|row| row["vlan"] == vlan)
}

#[test]
fn the_vlan_is_read_from_the_device_and_followed() {
    in_the_lab!("vlans");
    let wire = Wire::veth().unwrap();
    let (host, trunk) = (&wire.host, &wire.trunk);
    host.run(&format!(
        "ip link add link {trunk} name vlan10 up type vlan id 10 && \
         ip link add link {trunk} name uplink.x up type vlan id 20 && \
         ip link add link {trunk} name service up type vlan protocol 802.1ad id 10"
    ))
    .unwrap();
    let attached = attach(host, trunk);
    let (one, two) = (Netns::new().unwrap(), Netns::new().unwrap());
    macvlan(host, "vlan10", "a10", &one, "");
    macvlan(host, "uplink.x", "a20", &one, "address 02:00:00:00:07:07");
    // Another network on the same parent follows, and then the same MAC and address on another VLAN.
    macvlan(host, "vlan10", "b10", &two, "address 02:00:00:00:07:07");
    macvlan(host, "service", "b-service", &two, "");
    for (netns, device) in [(&one, "a20"), (&two, "b10")] {
        netns
            .run(&format!("ip addr add 10.0.0.7/24 dev {device}"))
            .unwrap();
    }
    eventually("three, none in conflict", &attached, |endpoints| {
        endpoints.len() == 3
            && is_on(endpoints, "a10", 10)
            && is_on(endpoints, "a20", 20)
            && is_on(endpoints, "b10", 10)
            && endpoints.iter().all(|row| row["conflict"] == false)
            && ["a20", "b10"]
                .iter()
                .all(|name| endpoint(endpoints, name).unwrap()["addresses"][0] == "10.0.0.7")
    });
    let status = attached.status().unwrap();
    assert_eq!(status["ignored"]["service_parents"], 1, "{status}");
    assert_eq!(status["ignored"]["stacked"], 1, "{status}");

    // The devices are recreated as `docker network rm` and `docker network create` do, but for another VLAN.
    host.run("ip link del uplink.x").unwrap();
    eventually("those of VLAN 10", &attached, |endpoints| {
        endpoints.len() == 2
    });
    host.run(&format!(
        "ip link add link {trunk} name uplink.x up type vlan id 21"
    ))
    .unwrap();
    macvlan(host, "uplink.x", "c21", &one, "");
    eventually("the same name with another VID", &attached, |endpoints| {
        endpoints.len() == 3 && is_on(endpoints, "c21", 21)
    });
    let status = attached.status().unwrap();
    let expected = serde_json::json!([
        {"vlan": 10, "parent": "vlan10", "endpoints": 2, "listeners": [], "host_access": false, "shortcut_to": [], "shortcut_from": null},
        {"vlan": 21, "parent": "uplink.x", "endpoints": 1, "listeners": [], "host_access": false, "shortcut_to": [], "shortcut_from": null},
    ]);
    assert_eq!(status["vlans"], expected);
    attached.stop().unwrap();
}

#[test]
fn only_a_vlan_with_hidden_receivers_is_shown() {
    in_the_lab!("listeners");
    let wire = Wire::veth().unwrap();
    let (host, trunk) = (&wire.host, &wire.trunk);
    for vid in [10, 20, 40, 50] {
        wire.vlan(vid).unwrap();
    }
    let attached = attach(host, trunk);
    let inside = Netns::new().unwrap();
    let make = |line: &str| host.run(&line.replace("TRUNK", trunk)).unwrap();
    make("ip link add br0 type bridge && ip link set TRUNK.10 master br0 && ip link set br0 up");
    listeners(&attached, 10, &["port"]);
    make(&format!(
        "ip link add link TRUNK.20 name ipv20 type ipvlan && ip link set ipv20 netns {}",
        inside.name
    ));
    listeners(&attached, 20, &["ipvlan"]);
    // This VLAN has no device on the host.
    macvlan(host, trunk, "mv0", &inside, "");
    inside
        .run("ip link add link mv0 name mv0.30 type vlan id 30 && ip link set mv0.30 up")
        .unwrap();
    listeners(&attached, 30, &["nested"]);
    let text = vlanfast(host, &["status", trunk]).unwrap().stdout;
    assert!(
        text.contains("no device on this host, 0 endpoints; not steered"),
        "{text}"
    );
    // The VLANs are the earlier four, this one, and the trunk itself, which has an endpoint.
    let vlans = attached.status().unwrap()["vlans"].clone();
    assert_eq!(vlans.as_array().unwrap().len(), 6, "{vlans}");
    // The trunk has to be promiscuous too, and does not count as a capture.
    let capture = Packets::open(&host.path(), &format!("{trunk}.40"), true).unwrap();
    let capture = capture.promiscuous().unwrap();
    listeners(&attached, 40, &["promiscuous"]);
    make("ip link add link TRUNK.50 name tap50 type macvtap mode bridge && ip link set tap50 up");
    listeners(&attached, 50, &["guests"]);
    listeners(&attached, 0, &[]);
    drop(capture);
    make("ip link del tap50 && ip link set TRUNK.10 nomaster");
    drop(inside);
    for vid in [0, 10, 20, 30, 40, 50] {
        listeners(&attached, vid, &[]);
    }
    // The socket is now on the trunk itself.
    make("ip link add link TRUNK name ipv0 type ipvlan");
    listeners(&attached, 0, &["ipvlan"]);
    let refused = ["attach", trunk, "--metrics", "off", "--shed", "vlan"];
    attached.stop().unwrap();
    let refused = vlanfast(host, &refused).unwrap();
    assert_eq!(refused.code, Some(4), "{refused:?}");
}

#[test]
fn a_bond_is_a_trunk_like_any_other() {
    in_the_lab!("bond");
    let wire = Wire::veth().unwrap();
    let host = &wire.host;
    let bond = unique();
    host.run(&format!(
        "ip link add {bond} type bond mode active-backup && ip link set {0} down && \
         ip link set {0} master {bond} && ip link set {bond} up && \
         ip link add link {bond} name {bond}.5 up type vlan id 5",
        wire.trunk
    ))
    .unwrap();
    // The bond's ports accept frames for MACs of their own.
    let refused = vlanfast(
        host,
        &["attach", &bond, "--metrics", "off", "--shed", "mac"],
    )
    .unwrap();
    assert_eq!(refused.code, Some(4), "{refused:?}");
    assert!(refused.stderr.contains("--shed vlan"), "{refused:?}");
    let attached = attach(host, &bond);
    assert!(
        attached.status().unwrap()["ingress"]["reason"]
            .as_str()
            .unwrap()
            .starts_with("bond")
    );
    let inside = Netns::new().unwrap();
    macvlan(host, &format!("{bond}.5"), "b5", &inside, "");
    eventually("the endpoint on the bond", &attached, |endpoints| {
        is_on(endpoints, "b5", 5)
    });
    attached.stop().unwrap();
}

/// Returns the rows of `endpoints --json`, with Docker's names.
fn named(host: &Netns, trunk: &str) -> Vec<Value> {
    let ended = vlanfast(host, &["endpoints", trunk, "--json"]).unwrap();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    serde_json::from_str::<Value>(&ended.stdout)
        .unwrap()
        .as_array()
        .unwrap()
        .clone()
}

/// Waits until the rows of the endpoints, with names, satisfy a condition.
fn eventually_named(what: &str, host: &Netns, trunk: &str, condition: impl Fn(&[Value]) -> bool) {
    let start = Instant::now();
    loop {
        let rows = named(host, trunk);
        if condition(&rows) {
            return;
        }
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "never came: {what}; there is {rows:#?}"
        );
        thread::sleep(Duration::from_millis(100));
    }
}

fn source(attached: &Attached, name: &str) -> String {
    let status = attached.status().unwrap();
    let sources = status["sources"].as_array().unwrap();
    let source = sources
        .iter()
        .find(|source| source["source"] == name)
        .unwrap();
    source["state"].as_str().unwrap().to_owned()
}

fn wait_for_docker(attached: &Attached, state: &str) {
    let start = Instant::now();
    while source(attached, "docker") != state {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "Docker is {}, and never {state}",
            source(attached, "docker")
        );
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn docker_gives_the_names_and_may_come_and_go() {
    in_the_lab!("docker");
    let wire = Wire::here().unwrap();
    let (host, trunk) = (&wire.host, &wire.trunk);
    let attached = Attached::start(host, trunk, &["--metrics", "off"]).unwrap();
    assert_eq!(source(&attached, "docker"), "absent");
    let mut docker = Docker::start().unwrap();
    wait_for_docker(&attached, "ok");
    for vid in [10, 20] {
        run(&format!(
            "docker network create -d macvlan --subnet=10.0.{vid}.0/24 -o parent={trunk}.{vid} net{vid}"
        ))
        .unwrap();
    }
    run("docker run -d --name c0 --net net10 --ip 10.0.10.2 --label com.docker.compose.project=shop \
         --label com.docker.compose.service=web --cap-add NET_ADMIN phusion/baseimage:latest")
    .unwrap();
    eventually_named("c0 by name", host, trunk, |rows| {
        rows.len() == 1
            && is(rows, 10, "c0", "net10")
            && rows[0]["project"] == "shop"
            && rows[0]["service"] == "web"
            && rows[0]["addresses"][0] == "10.0.10.2"
    });
    names_follow_what_docker_does(host, trunk);

    docker.kill().unwrap();
    wait_for_docker(&attached, "unreachable");
    assert_eq!(
        attached.endpoints().unwrap().len(),
        1,
        "names go, endpoints stay"
    );
    docker.restart().unwrap();
    wait_for_docker(&attached, "ok");
    run("docker rm -f c0").unwrap();
    eventually_named("none", host, trunk, <[Value]>::is_empty);
    run("docker network rm net10 net20").unwrap();
    let start = Instant::now();
    while attached.status().unwrap()["vlans"] != serde_json::json!([]) {
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "the VLANs stay though their devices are gone"
        );
        thread::sleep(Duration::from_millis(50));
    }
    attached.stop().unwrap();
}

/// Checks by Docker's names whether a container has an endpoint on a VLAN.
fn is(rows: &[Value], vlan: u16, container: &str, network: &str) -> bool {
    rows.iter().any(|row| {
        row["vlan"] == vlan && row["container"] == container && row["network"] == network
    })
}

/// Connects, disconnects, pauses and recreates the container, and changes its MAC.
fn names_follow_what_docker_does(host: &Netns, trunk: &str) {
    run("docker network connect --ip 10.0.20.2 net20 c0").unwrap();
    eventually_named("c0 in both VLANs", host, trunk, |rows| {
        rows.len() == 2 && is(rows, 10, "c0", "net10") && is(rows, 20, "c0", "net20")
    });
    run("docker network disconnect net20 c0").unwrap();
    eventually_named("c0 in one VLAN", host, trunk, |rows| {
        rows.len() == 1 && is(rows, 10, "c0", "net10")
    });
    run("docker pause c0").unwrap();
    thread::sleep(Duration::from_millis(300));
    assert!(
        is(&named(host, trunk), 10, "c0", "net10"),
        "a paused container is still there"
    );
    run("docker unpause c0").unwrap();

    // The first MAC is unknown to Docker, and the second was assigned by Docker.
    run("docker exec c0 ip link set eth0 address 02:00:00:00:09:09").unwrap();
    eventually_named("c0 with another MAC", host, trunk, |rows| {
        rows.len() == 1 && rows[0]["mac"] == "02:00:00:00:09:09" && is(rows, 10, "c0", "net10")
    });
    run(
        "docker rm -f c0 && docker run -d --name c0 --net net10 --ip 10.0.10.2 \
         --mac-address 02:00:00:00:0a:0a phusion/baseimage:latest",
    )
    .unwrap();
    eventually_named("c0 made anew", host, trunk, |rows| {
        rows.len() == 1 && rows[0]["mac"] == "02:00:00:00:0a:0a" && is(rows, 10, "c0", "net10")
    });
}

//! A container has the MAC of a station on the wire: frames of the host for that station still reach it.

use vlanfast_tests::{
    fixtures::macvlans::{attach, container},
    net::{
        namespace::Netns,
        topology::{WIRE, Wire},
    },
    require,
};

use crate::owners::{CONTAINER, GATEWAY, VIRTUAL, add, found, host_gateway_and_container, row};

/// The hop limit by which the test recognises the gateway's answers.
const HOPS: u8 = 77;

fn marked(netns: &Netns) {
    let line = format!(
        "echo {HOPS} >/proc/sys/net/ipv4/ip_default_ttl; echo {HOPS} | tee /proc/sys/net/ipv6/conf/*/hop_limit >/dev/null"
    );
    netns.run(&line).unwrap();
}

/// Checks that the marked station answers ten of ten pings of the host to each address, each after a new resolution.
fn reaches(wire: &Wire, addresses: [&str; 2], when: &str) {
    for address in addresses {
        let trunk = &wire.trunk;
        let line = format!(
            "for i in 1 2 3 4 5 6 7 8 9 10; do ip neigh flush dev {trunk}; \
             ping -c 1 -W 1 {address} | grep -o ttl=[0-9]*; done; true"
        );
        let answers = wire.host.run(&line).unwrap();
        let all = format!("ttl={HOPS}\n").repeat(10);
        assert_eq!(answers.trim(), all.trim(), "{address} {when}");
    }
}

/// The container has the gateway's MAC, with or without the gateway's addresses, before vlanfast attaches or later.
#[test]
fn a_container_with_the_gateways_mac_gets_none_of_its_frames() {
    require!("double", nix::unistd::geteuid().is_root(), "needs root");
    for (mode, with_addresses) in [("bridge", false), ("bridge", true), ("vepa", false)] {
        let (wire, inside) = host_gateway_and_container();
        marked(&wire.router);
        inside
            .run(&format!("ip link set mv0 type macvlan mode {mode}"))
            .unwrap();
        let what = format!("{mode} {with_addresses}");
        let access = ["--host-access", "0"];
        let attached = attach(&wire, &access);
        for address in CONTAINER {
            let own = inside.mac("mv0").ok();
            assert_eq!(found(&wire, address), own, "{what}: {address}");
        }
        let gateway = vlanfast_common::Mac(wire.router.mac(WIRE).unwrap());
        let line = format!("ip link set mv0 address {gateway}");
        inside.run(&line).unwrap();
        if with_addresses {
            add(&inside, "mv0", GATEWAY, true);
        }
        reaches(&wire, GATEWAY, &format!("{what}, later"));
        row(&attached, "the conflict", |row| {
            row["conflict"] == true && row["claimed_by_wire"] == gateway.to_string()
        });
        let status = attached.status().unwrap();
        let warning = status["warnings"][0].as_str().unwrap();
        assert!(warning.contains("this MAC"), "{warning}");
        attached.stop().unwrap();
        reaches(&wire, GATEWAY, &format!("{what}, without"));
        let flush = format!("ip neigh flush dev {}", wire.trunk);
        wire.host.run(&flush).unwrap();
        let attached = attach(&wire, &access);
        reaches(&wire, GATEWAY, &format!("{what}, before"));
        attached.stop().unwrap();
    }
}

/// The host has known its gateway all along, and sends no request.
#[test]
fn a_mac_that_the_host_knows_on_the_wire_stays_there() {
    require!(
        "known double",
        nix::unistd::geteuid().is_root(),
        "needs root"
    );
    let (wire, inside) = host_gateway_and_container();
    marked(&wire.router);
    let gateway = vlanfast_common::Mac(wire.router.mac(WIRE).unwrap());
    for address in GATEWAY {
        let line = format!(
            "ip neigh replace {address} lladdr {gateway} dev {} nud permanent",
            wire.trunk
        );
        wire.host.run(&line).unwrap();
    }
    let line = format!("ip link set mv0 address {gateway}");
    inside.run(&line).unwrap();
    reaches(&wire, GATEWAY, "without");
    let attached = attach(&wire, &["--host-access", "0"]);
    reaches(&wire, GATEWAY, "with");
    row(&attached, "the conflict", |row| row["conflict"] == true);
    inside
        .run("ip link set mv0 address 02:00:00:00:ee:07")
        .unwrap();
    row(&attached, "its end", |row| row["conflict"] == false);
    attached.stop().unwrap();
}

/// The set-up is keepalived's: the master is on the wire, and the backup on this host has its MAC without an address.
/// Then the backup takes over.
#[test]
fn a_backup_with_the_masters_mac_takes_over_at_once() {
    const MAC: &str = "00:00:5e:00:01:07";
    require!("backup", nix::unistd::geteuid().is_root(), "needs root");
    let wire = host_gateway_and_container().0;
    marked(&wire.router);
    let line = format!(
        "ip link add link {WIRE} name vrrp address {MAC} type macvlan mode private && ip link set vrrp up"
    );
    wire.router.run(&line).unwrap();
    add(&wire.router, "vrrp", VIRTUAL, false);
    let backup = container(&wire, "mv1", "10.9.0.3");
    let line = format!("ip addr flush dev mv1; ip link set mv1 address {MAC}");
    backup.run(&line).unwrap();
    reaches(&wire, VIRTUAL, "without");
    let attached = attach(&wire, &["--host-access", "0"]);
    reaches(&wire, VIRTUAL, "with");
    wire.router.run("ip link del vrrp").unwrap();
    marked(&backup);
    add(&backup, "mv1", VIRTUAL, false);
    std::thread::sleep(std::time::Duration::from_secs(1));
    reaches(&wire, VIRTUAL, "taken over");
    attached.stop().unwrap();
}

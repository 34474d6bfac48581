//! An address belongs to the station to which it was given, or that has it on the wire; an address on a container's
//! device is only a claim.

use std::{
    net::{IpAddr, Ipv6Addr},
    thread,
    time::{Duration, Instant},
};

use aya::maps::{HashMap, Map, MapData};
use vlanfast::maps::tables::now;
use vlanfast_common::{Claim, Mac, Neighbor, NeighborKey, Vid};
use vlanfast_tests::{
    fixtures::macvlans::{attach, container},
    net::{
        capture::Packets,
        namespace::Netns,
        topology::{WIRE, Wire},
    },
    require,
    run::{
        observe::{endpoint, eventually},
        pinned_tables::PinnedTables,
        pins::pins,
        program::Attached,
    },
};

const HOST: [&str; 2] = ["10.9.0.5", "fd09::5"];
pub const GATEWAY: [&str; 2] = ["10.9.0.1", "fd09::1"];
pub const CONTAINER: [&str; 2] = ["10.9.0.2", "fd09::2"];
pub const VIRTUAL: [&str; 2] = ["10.9.0.100", "fd09::100"];

/// Gives a device an address of each version; with `alone`, the address is on no network of its own.
pub fn add(netns: &Netns, device: &str, [four, six]: [&str; 2], alone: bool) {
    let (long, longer) = if alone { (32, 128) } else { (24, 64) };
    let line = format!(
        "echo 0 >/proc/sys/net/ipv6/conf/{device}/disable_ipv6; \
         ip addr add {four}/{long} dev {device} && ip addr add {six}/{longer} dev {device} nodad"
    );
    netns.run(&line).unwrap();
}

/// Creates a host, its gateway on the wire, and a container.
pub fn host_gateway_and_container() -> (Wire, Netns) {
    let wire = Wire::veth().unwrap();
    add(&wire.host, &wire.trunk, HOST, false);
    add(&wire.router, WIRE, GATEWAY, false);
    let inside = container(&wire, "mv0", CONTAINER[0]);
    let line = format!(
        "echo 0 >/proc/sys/net/ipv6/conf/mv0/disable_ipv6; ip addr add {}/64 dev mv0 nodad",
        CONTAINER[1]
    );
    inside.run(&line).unwrap();
    (wire, inside)
}

/// Returns the MAC that the host resolves for an address, after a new request.
pub fn found(wire: &Wire, address: &str) -> Option<[u8; 6]> {
    let trunk = &wire.trunk;
    let line = format!(
        "ip neigh flush dev {trunk}; ping -c 1 -W 1 {address} >/dev/null; \
         ip neigh show {address} dev {trunk} | grep -o '[0-9a-f:]\\{{17\\}}' || true"
    );
    let text = wire.host.run(&line).unwrap();
    let bytes = text
        .trim()
        .split(':')
        .map(|it| u8::from_str_radix(it, 16).ok());
    bytes.collect::<Option<Vec<_>>>()?.try_into().ok()
}

/// Returns all MACs that the host resolves in ten attempts for the gateway's addresses.
fn gateways(wire: &Wire) -> Vec<Option<[u8; 6]>> {
    let addresses = GATEWAY.iter().flat_map(|address| [*address; 10]);
    let mut all: Vec<_> = addresses.map(|address| found(wire, address)).collect();
    all.dedup();
    all
}

/// Returns the container's row once a condition holds.
pub fn row(attached: &Attached, what: &str, is: impl Fn(&serde_json::Value) -> bool) {
    eventually(what, attached, |rows| {
        endpoint(rows, "mv0").is_some_and(&is)
    });
}

/// Waits until the map's entry for an address satisfies a condition; fails with the last entry.
fn settles(tables: &PinnedTables, address: &str, is: impl Fn(Option<Neighbor>) -> bool) {
    let start = Instant::now();
    loop {
        let neighbor = tables.neighbor(0, address.parse().unwrap()).unwrap();
        if is(neighbor) {
            return;
        }
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "{address} is {neighbor:?}"
        );
        thread::sleep(Duration::from_millis(20));
    }
}

/// The claim exists before vlanfast attaches, or comes later: even with an empty neighbour cache, the host finds its
/// gateway.
#[test]
fn a_container_never_gets_what_the_host_sends_to_its_gateway() {
    require!("gateway", nix::unistd::geteuid().is_root(), "needs root");
    let (wire, inside) = host_gateway_and_container();
    let gateway = Some(wire.router.mac(WIRE).unwrap());
    assert_eq!(gateways(&wire), [gateway]);
    let access = ["--host-access", "0"];
    let attached = attach(&wire, &access);
    assert_eq!(gateways(&wire), [gateway]);
    add(&inside, "mv0", GATEWAY, true);
    let claims = |row: &serde_json::Value| row["claimed_by_wire"].is_string();
    row(&attached, "the later claim", claims);
    assert_eq!(gateways(&wire), [gateway], "after");
    attached.stop().unwrap();
    assert_eq!(gateways(&wire), [gateway], "without");
    let flush = format!("ip neigh flush dev {}", wire.trunk);
    wire.host.run(&flush).unwrap();
    let attached = attach(&wire, &access);
    assert_eq!(gateways(&wire), [gateway], "before");
    row(&attached, "the earlier claim", claims);
    // The container's own address is not affected.
    for address in CONTAINER {
        assert_eq!(
            found(&wire, address),
            Some(inside.mac("mv0").unwrap()),
            "{address}"
        );
    }
    attached.stop().unwrap();
}

#[test]
fn an_address_that_the_host_knows_on_the_wire_stays_there() {
    require!("known", nix::unistd::geteuid().is_root(), "needs root");
    let (wire, inside) = host_gateway_and_container();
    add(&inside, "mv0", GATEWAY, true);
    let gateway = wire.router.mac(WIRE).unwrap();
    for address in GATEWAY {
        assert_eq!(found(&wire, address), Some(gateway), "{address}");
    }
    for address in GATEWAY {
        wire.host.run(&format!("ping -c 1 -W 1 {address}")).unwrap();
    }
    let attached = attach(&wire, &["--host-access", "0"]);
    let tables = PinnedTables::open(&wire.trunk).unwrap();
    // The entries are marked from the start, and not only after a second look.
    for address in GATEWAY {
        let neighbor = tables.neighbor(0, address.parse().unwrap()).unwrap();
        assert!(
            neighbor.is_some_and(|it| it.has(Neighbor::FOREIGN)),
            "{address}: {neighbor:?}"
        );
    }
    for address in CONTAINER {
        settles(&tables, address, |it| it.is_some_and(|it| it.flags == 0));
    }
    for address in HOST {
        let neighbor = tables.neighbor(0, address.parse().unwrap()).unwrap();
        assert_eq!(neighbor.map(|it| it.flags), Some(Neighbor::ASSIGNED));
    }
    row(&attached, "the conflict", |row| {
        row["conflict"] == true && row["claimed_by_wire"] == Mac(gateway).to_string()
    });
    let status = attached.status().unwrap();
    let warning = status["warnings"][0].as_str().unwrap();
    assert!(
        warning.contains(GATEWAY[0]) && warning.contains(GATEWAY[1]),
        "{warning}"
    );
    let line = format!(
        "ip addr del {}/32 dev mv0; ip addr del {}/128 dev mv0",
        GATEWAY[0], GATEWAY[1]
    );
    inside.run(&line).unwrap();
    row(&attached, "its end", |row| {
        row["conflict"] == false && row["claimed_by_wire"].is_null()
    });
    attached.stop().unwrap();
}

/// A claim that the programs see is valid for as long as it is repeated.
#[test]
fn a_claim_that_the_programs_have_seen_is_followed_until_it_expires() {
    require!("claim", nix::unistd::geteuid().is_root(), "needs root");
    let (wire, _inside) = host_gateway_and_container();
    let attached = attach(&wire, &["--host-access", "0"]);
    let tables = PinnedTables::open(&wire.trunk).unwrap();
    let claims = MapData::from_pin(pins(&wire.trunk).join("CLAIMS")).map(Map::LruHashMap);
    let mut claims: HashMap<_, NeighborKey, Claim> = claims.unwrap().try_into().unwrap();
    for address in CONTAINER {
        settles(&tables, address, |it| it.is_some_and(|it| it.flags == 0));
        let parsed: IpAddr = address.parse().unwrap();
        let key = NeighborKey::new(Vid::UNTAGGED, parsed);
        let mut claim = Claim {
            heard: now().unwrap().as_nanos() as u64,
            mac: [2, 0, 0, 0, 0xee, 1],
            reserved: 0,
        };
        claims.insert(key, claim, 0).unwrap();
        settles(&tables, address, |it| {
            it.is_some_and(|it| it.has(Neighbor::FOREIGN))
        });
        row(&attached, "the claimant", |row| {
            row["claimed_by_wire"] == Mac(claim.mac).to_string()
        });
        // The claim's time is set back, as if the programs had seen it long ago.
        claim.heard -= Duration::from_secs(151).as_nanos() as u64;
        claims.insert(key, claim, 0).unwrap();
        settles(&tables, address, |it| it.is_some_and(|it| it.flags == 0));
        assert!(claims.get(&key, 0).is_err());
    }
    row(&attached, "peace", |row| row["conflict"] == false);
    attached.stop().unwrap();
}

#[test]
fn the_wire_is_asked_before_a_containers_claim_is_accepted() {
    require!("asked", nix::unistd::geteuid().is_root(), "needs root");
    let (wire, inside) = host_gateway_and_container();
    let host = wire.host.mac(&wire.trunk).unwrap();
    let target: Ipv6Addr = CONTAINER[1].parse().unwrap();
    let questions = |packets: &Packets| -> (usize, usize) {
        let frames = packets.incoming().unwrap();
        let count = |is: &dyn Fn(&[u8]) -> bool| {
            let ours = frames.iter().filter(|frame| frame[6..12] == host);
            ours.filter(|frame| is(frame)).count()
        };
        let arp = |frame: &[u8]| {
            frame[12..14] == [8, 6] && frame[28..32] == [0; 4] && frame[38..42] == [10, 9, 0, 2]
        };
        // A solicitation for duplicate address detection has no source address either.
        let solicitation = |frame: &[u8]| {
            let rest = frame.get(22..78).filter(|_| frame[12..14] == [0x86, 0xdd]);
            rest.is_some_and(|it| {
                it[..16] == [0; 16] && it[32] == 135 && it[40..] == target.octets()
            })
        };
        (count(&arp), count(&solicitation))
    };
    // Without features that bypass the wire, there is no need to ask.
    let packets = Packets::open(&wire.router.path(), WIRE, true).unwrap();
    attach(&wire, &[]).stop().unwrap();
    assert_eq!(questions(&packets), (0, 0));
    // In a dry run without host access, only the wire receives the requests.
    let attached = attach(&wire, &["--host-access", "0", "--dry-run"]);
    assert_eq!(questions(&packets), (2, 2));
    let tables = PinnedTables::open(&wire.trunk).unwrap();
    for address in CONTAINER {
        let neighbor = tables.neighbor(0, address.parse().unwrap()).unwrap();
        assert_eq!(neighbor.map(|it| it.flags), Some(0), "{address}");
    }
    // An address that is added later stays unconfirmed until the wire has not answered.
    inside.run("ip addr add 10.9.0.3/24 dev mv0").unwrap();
    settles(&tables, "10.9.0.3", |it| {
        it.is_some_and(|it| it.flags == Neighbor::UNSURE)
    });
    settles(&tables, "10.9.0.3", |it| it.is_some_and(|it| it.flags == 0));
    attached.stop().unwrap();
}

/// A virtual address whose director is on the wire; the servers have it as well and do not answer for it.
#[test]
fn a_device_that_does_not_answer_is_never_a_target() {
    require!("silent", nix::unistd::geteuid().is_root(), "needs root");
    let (wire, _inside) = host_gateway_and_container();
    add(&wire.router, WIRE, VIRTUAL, true);
    let director = Some(wire.router.mac(WIRE).unwrap());
    // Each server has a macvlan of its own, which stops answering ARP before it gets the address.
    let server = |line: &str| {
        let netns = Netns::new().unwrap();
        let (trunk, name) = (&wire.trunk, &netns.name);
        wire.host
            .run(&format!(
                "ip link add link {trunk} name mv9 type macvlan mode bridge && ip link set mv9 netns {name}"
            ))
            .unwrap();
        netns.run(line).unwrap();
        netns.run("ip link set mv9 up").unwrap();
        netns
    };
    let quiet = server("ip link set mv9 arp off");
    add(&quiet, "mv9", VIRTUAL, true);
    let ignores = server("echo 8 >/proc/sys/net/ipv4/conf/mv9/arp_ignore");
    let line = format!("ip addr add {}/32 dev mv9", VIRTUAL[0]);
    ignores.run(&line).unwrap();
    for address in VIRTUAL {
        assert_eq!(found(&wire, address), director, "{address} without");
    }
    let attached = attach(&wire, &["--host-access", "0"]);
    let tables = PinnedTables::open(&wire.trunk).unwrap();
    for address in VIRTUAL {
        let neighbor = tables.neighbor(0, address.parse().unwrap()).unwrap();
        assert_eq!(neighbor, None, "{address}");
        assert_eq!(found(&wire, address), director, "{address} with");
    }
    attached.stop().unwrap();
}

/// The settings that decide whether a device answers may change at any time.
#[test]
fn a_device_that_stops_answering_loses_its_addresses() {
    require!(
        "falls silent",
        nix::unistd::geteuid().is_root(),
        "needs root"
    );
    let (wire, inside) = host_gateway_and_container();
    let attached = attach(&wire, &["--host-access", "0"]);
    let tables = PinnedTables::open(&wire.trunk).unwrap();
    for address in CONTAINER {
        settles(&tables, address, |it| it.is_some_and(|it| it.flags == 0));
        assert_eq!(found(&wire, address), inside.mac("mv0").ok());
    }
    inside.run("ip link set mv0 arp off").unwrap();
    for address in CONTAINER {
        settles(&tables, address, |it| it.is_none());
        assert_eq!(found(&wire, address), None, "{address}");
    }
    inside.run("ip link set mv0 arp on").unwrap();
    for address in CONTAINER {
        settles(&tables, address, |it| it.is_some_and(|it| it.flags == 0));
    }
    attached.stop().unwrap();
}

//! Writes the tables to the kernel's maps, reads them back, and fills them up.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use vlanfast::{
    maps::{
        load,
        tables::{Heartbeat, TableMaps, now},
    },
    pins::{Pins, TrunkId},
    state::{
        name::Name,
        plan::{Capacity, Plan, plan},
        quotas::Quotas,
        tables::{Desired, DesiredTables},
    },
};
use vlanfast_common::{
    Endpoint, EndpointKey, Mac, Neighbor, NeighborKey, Parent, Policy, Route, Source, SourceState,
    Status, Vid,
};
use vlanfast_tests::{net::namespace::unique, require};

const CAPACITY: Capacity = Capacity {
    endpoints: 4,
    neighbors: 16,
    routes: 16,
};

/// Returns the plan from some tables to others, without a quota for a single device.
fn planned(installed: &DesiredTables, wanted: &DesiredTables, capacity: Capacity) -> Plan {
    let quotas = Quotas {
        addresses: u32::MAX,
        endpoints: u32::MAX,
    };
    let desired = Desired {
        tables: wanted.clone(),
        ..Desired::default()
    };
    plan(installed, &desired, capacity, quotas)
}

/// Creates maps that only this test sees.
fn maps() -> TableMaps {
    let nobody = TrunkId {
        netns: 0,
        ifindex: 0,
    };
    let made = Pins::create(nobody, &Name::from(unique().as_str())).unwrap();
    let (pins, _lock) = made.unwrap();
    let (_ebpf, maps) = load::adopt(&pins, CAPACITY, &Policy::default(), 0).unwrap();
    // A map without a pin lives as long as it is open.
    pins.remove().unwrap();
    maps
}

/// Returns tables with containers of these numbers on VLAN 10, each with an address of both IP versions.
fn tables(numbers: &[u8]) -> DesiredTables {
    let vid = Vid::new(10);
    let mut tables = DesiredTables {
        vlans: BTreeMap::from([(
            vid,
            Parent {
                ifindex: 3,
                flags: Parent::UP,
                ..Parent::default()
            },
        )]),
        ..DesiredTables::default()
    };
    for &number in numbers {
        let mac = Mac([2, 0, 0, 0, 0, number]);
        let endpoint = Endpoint {
            ifindex: number.into(),
            nsid: 7,
            parent: 3,
            mode: 4,
            flags: Endpoint::CONFLICT,
        };
        tables
            .endpoints
            .insert(EndpointKey::new(vid, mac), endpoint);
        let neighbor = Neighbor {
            mac: mac.0,
            flags: 0,
        };
        for address in [
            IpAddr::from([10, 0, 10, number]),
            IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, number.into()]),
        ] {
            tables
                .neighbors
                .insert(NeighborKey::new(vid, address), neighbor);
        }
        let route = Route {
            mac: mac.0,
            vid: 10,
        };
        let key = NeighborKey::new(Vid::new(20), [10, 0, 10, number].into());
        tables.routes.insert(key, route);
    }
    tables
}

#[test]
fn the_kernel_holds_what_was_planned() {
    require!("plan", nix::unistd::geteuid().is_root(), "needs root");
    let mut maps = maps();
    assert_eq!(maps.capacity().unwrap(), CAPACITY);
    let mut installed = DesiredTables::default();
    assert_eq!(maps.read().unwrap(), installed, "new maps are empty");
    for numbers in [&[1, 2][..], &[2, 3, 4], &[], &[9]] {
        let wanted = tables(numbers);
        maps.apply(&planned(&installed, &wanted, CAPACITY)).unwrap();
        installed = maps.read().unwrap();
        assert_eq!(installed, wanted);
    }
    let fills: Vec<_> = maps
        .fills(&installed, true)
        .unwrap()
        .iter()
        .map(|fill| (fill.map, fill.entries, fill.capacity))
        .collect();
    let expected = [
        ("VLANS", 1, 4096),
        ("ENDPOINTS", 1, 4),
        ("NEIGHBORS", 2, 16),
        ("ROUTES", 1, 16),
    ];
    assert_eq!(fills, expected);

    let all_gone = planned(&installed, &DesiredTables::default(), CAPACITY);
    maps.apply(&all_gone).unwrap();
    maps.apply(&all_gone)
        .expect("what is gone needs no removal");
    assert_eq!(maps.read().unwrap(), DesiredTables::default());
}

#[test]
fn entries_without_room_are_left_out_and_the_rest_is_there() {
    require!("full", nix::unistd::geteuid().is_root(), "needs root");
    let mut maps = maps();
    let wanted = tables(&[1, 2, 3, 4, 5, 6]);
    let plan = planned(&DesiredTables::default(), &wanted, CAPACITY);
    assert_eq!(plan.endpoints.left_out, 2);
    maps.apply(&plan).unwrap();
    maps.set_status(&Status {
        endpoints_left_out: plan.endpoints.left_out,
        ..Status::default()
    })
    .unwrap();
    let fills = maps.fills(&maps.read().unwrap(), false).unwrap();
    let (endpoints, neighbors) = (&fills[1], &fills[2]);
    assert_eq!((endpoints.entries, endpoints.left_out), (4, 2));
    assert_eq!((neighbors.entries, neighbors.left_out), (12, 0));
}

#[test]
fn the_heartbeat_and_the_rest_of_settings_do_not_disturb_each_other() {
    require!("heartbeat", nix::unistd::geteuid().is_root(), "needs root");
    let mut maps = maps();
    let heartbeat = |maps: &TableMaps, now: Duration| Heartbeat::of(&maps.settings().unwrap(), now);
    let mut settings = maps.settings().unwrap();
    settings.ifindex = 5;
    maps.set_settings(&settings).unwrap();
    assert_eq!(heartbeat(&maps, now().unwrap()), Heartbeat::Stopped);
    maps.beat(Duration::from_secs(3)).unwrap();
    let start = now().unwrap();
    assert_eq!(heartbeat(&maps, start), Heartbeat::Alive);
    let late = start + Duration::from_secs(3);
    assert_eq!(heartbeat(&maps, late), Heartbeat::Expired);
    maps.stop().unwrap();
    assert_eq!(heartbeat(&maps, start), Heartbeat::Stopped);
    assert_eq!(maps.settings().unwrap().ifindex, 5);

    let mut status = Status::default();
    status.sources[Source::Netlink as usize].state = SourceState::Ok as u32;
    maps.set_status(&status).unwrap();
    assert_eq!(maps.status().unwrap(), status);
}

/// Cached routes are valid during one heartbeat.
#[test]
fn a_change_to_the_tables_moves_the_heartbeat() {
    require!("renewal", nix::unistd::geteuid().is_root(), "needs root");
    let mut maps = maps();
    let heartbeat = |maps: &TableMaps| maps.settings().unwrap().heartbeat;
    let one = tables(&[1]);
    maps.apply(&planned(&DesiredTables::default(), &one, CAPACITY))
        .unwrap();
    assert_eq!(heartbeat(&maps), 0, "none before it begins");
    maps.beat(Duration::from_secs(3)).unwrap();
    let before = heartbeat(&maps);
    maps.apply(&Plan::default()).unwrap();
    assert_eq!(heartbeat(&maps), before, "nothing has changed");
    let other = tables(&[2]);
    maps.apply(&planned(&one, &other, CAPACITY)).unwrap();
    assert_eq!(heartbeat(&maps), before + 1);
    // The tables exceed the map's capacity, so only a part is written.
    let room = Capacity {
        endpoints: 99,
        ..CAPACITY
    };
    let too_much = planned(&other, &tables(&[3, 4, 5, 6, 7]), room);
    maps.apply(&too_much).unwrap_err();
    assert_eq!(heartbeat(&maps), before + 2);
}

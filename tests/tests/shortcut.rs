//! Level `vm`: packets between two VLANs of one host, by the router and by the shortcut.

use std::{thread, time::Duration};

use vlanfast_tests::{
    house::{FAR, House, NEAR, is_whole, ping, shortcuts},
    in_the_lab,
    program::Attached,
    scenario::transfer,
    topology::WIRE,
};

fn allowed(house: &House) -> Attached {
    house
        .attach(&["--shortcut", "allow", "--shortcut-allow", "10:20"])
        .unwrap()
}

#[test]
fn what_is_allowed_does_without_the_router() {
    in_the_lab!("shortcut");
    let house = House::new().unwrap();
    let attached = house.attach(&[]).unwrap();
    let before = house.routed().unwrap();
    house.pings(50, 63).unwrap();
    assert!(house.routed().unwrap() - before >= 400, "by the router");
    attached.stop().unwrap();

    let attached = allowed(&house);
    let status = attached.status().unwrap();
    for (vlan, other) in status["vlans"].as_array().unwrap().iter().zip([20, 10]) {
        assert_eq!(
            vlan["shortcut_to"],
            serde_json::json!([other]),
            "{status:#}"
        );
    }
    let before = house.routed().unwrap();
    house.pings(50, 63).unwrap();
    transfer(&house.near, &house.far, FAR[0]).unwrap();
    transfer(&house.far, &house.near, NEAR[1]).unwrap();
    assert_eq!(
        house.routed().unwrap() - before,
        0,
        "nothing is for the router"
    );
    assert!(shortcuts(&attached, 10).unwrap() > 200 && shortcuts(&attached, 20).unwrap() > 200);
    let counters = attached.row(10).unwrap();
    // No more than the router's answers for itself.
    let unicast = counters["rx"]["packets"]["unicast"].as_u64().unwrap();
    assert!(unicast < 20, "{counters:#}");
    // What is larger than fits is split by the sender, and fragments are the router's.
    let said = ping(&house.near, FAR[0], 3, "-s 4000").unwrap();
    assert!(
        is_whole(&said) && house.routed().unwrap() > before,
        "{said}"
    );
    attached.stop().unwrap();
}

#[test]
fn a_route_is_traced_through_the_router_all_the_same() {
    in_the_lab!("shortcut, traceroute");
    let house = House::new().unwrap();
    for arguments in [
        &[][..],
        &["--shortcut", "allow", "--shortcut-allow", "20:10,30:40"],
    ] {
        let attached = house.attach(arguments).unwrap();
        for (address, router) in FAR.into_iter().zip(["10.0.10.1", "fd00:10::1"]) {
            let said = ping(&house.near, address, 1, "-t 1").unwrap();
            let expired = said.contains("Time to live exceeded") || said.contains("Hop limit");
            assert!(expired && said.contains(router), "{said}");
            let said = ping(&house.near, address, 1, "-t 2").unwrap();
            assert!(is_whole(&said), "{said}");
        }
        attached.stop().unwrap();
    }
}

#[test]
fn what_is_not_allowed_or_does_not_fit_is_the_routers() {
    in_the_lab!("shortcut, not taken");
    let house = House::new().unwrap();
    let attached = house
        .attach(&["--shortcut", "allow", "--shortcut-allow", "10:30"])
        .unwrap();
    let before = house.routed().unwrap();
    house.pings(50, 63).unwrap();
    assert!(house.routed().unwrap() - before >= 400);
    assert_eq!(shortcuts(&attached, 10).unwrap(), 0);
    attached.stop().unwrap();

    let attached = allowed(&house);
    let trunk = &house.wire.trunk;
    house
        .wire
        .host
        .run(&format!("ip link set {trunk}.20 mtu 1400"))
        .unwrap();
    let line = format!("ip link set {WIRE}.20 mtu 1400");
    house.wire.router.run(&line).unwrap();
    thread::sleep(Duration::from_millis(300));
    let said = ping(&house.near, FAR[0], 1, "-M do -s 1400").unwrap();
    assert!(
        said.contains("Frag needed and DF set (mtu = 1400)"),
        "{said}"
    );
    let before = shortcuts(&attached, 10).unwrap();
    let said = ping(&house.near, FAR[0], 10, "-M do -s 1372").unwrap();
    assert!(is_whole(&said), "{said}");
    assert!(shortcuts(&attached, 10).unwrap() >= before + 10);
    attached.stop().unwrap();
}

#[test]
fn a_container_that_goes_takes_its_routes_with_it() {
    in_the_lab!("shortcut, sync");
    let house = House::new().unwrap();
    let attached = allowed(&house);
    assert!(is_whole(&ping(&house.near, FAR[0], 3, "").unwrap()));
    house
        .far
        .run("ip addr del 10.0.20.2/24 dev eth0 && ip addr add 10.0.20.3/24 dev eth0")
        .unwrap();
    house.far.run("ip route add default via 10.0.20.1").unwrap();
    thread::sleep(Duration::from_millis(300));
    let taken = shortcuts(&attached, 10).unwrap();
    let said = ping(&house.near, FAR[0], 2, "").unwrap();
    assert!(said.contains("100% packet loss"), "{said}");
    assert_eq!(shortcuts(&attached, 10).unwrap(), taken);
    assert!(is_whole(&ping(&house.near, "10.0.20.3", 3, "").unwrap()));
    assert!(shortcuts(&attached, 10).unwrap() > taken);
    attached.stop().unwrap();
}

#[test]
fn without_a_heartbeat_the_router_has_it_all() {
    in_the_lab!("shortcut, no heartbeat");
    let house = House::new().unwrap();
    let attached = allowed(&house);
    let before = house.routed().unwrap();
    thread::scope(|scope| {
        let talking = scope.spawn(|| ping(&house.near, FAR[0], 800, "").unwrap());
        thread::sleep(Duration::from_secs(2));
        assert_eq!(house.routed().unwrap() - before, 0);
        attached.kill().unwrap();
        let said = talking.join().unwrap();
        assert!(is_whole(&said), "{said}");
    });
    assert!(house.routed().unwrap() > before);
    let attached = allowed(&house);
    let before = house.routed().unwrap();
    assert!(is_whole(&ping(&house.near, FAR[0], 10, "").unwrap()));
    assert_eq!(house.routed().unwrap() - before, 0);
    attached.stop().unwrap();
}

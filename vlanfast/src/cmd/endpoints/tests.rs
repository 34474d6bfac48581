use vlanfast_common::{Mac, Vid};

use super::*;

const INSIDE: DeviceId = (Nsid::Other(3), Ifindex(7));

fn device(endpoint: Endpoint, addresses: &[&str]) -> EndpointDevice {
    let nsid = Nsid::Other(endpoint.nsid);
    EndpointDevice {
        name: "eth0".into(),
        nsid,
        parent: "eth0.10".into(),
        addresses: addresses.iter().map(|it| it.parse().unwrap()).collect(),
        endpoint,
    }
}

/// A context with devices that netlink shows, and with empty maps.
fn context(devices: &[(EndpointKey, EndpointDevice)]) -> Context {
    let mut desired = Desired::default();
    for (key, device) in devices {
        let place = (device.nsid, Ifindex(device.endpoint.ifindex));
        desired.devices.insert((*key, place), device.clone());
    }
    Context {
        trunk: "eth0".into(),
        tables: DesiredTables::default(),
        desired,
        names: BTreeMap::new(),
        claimed: BTreeMap::new(),
        rivals: BTreeSet::new(),
    }
}

#[test]
fn two_devices_with_one_mac_or_address_are_two_rows_and_both_in_conflict() {
    let key = |last| EndpointKey::new(Vid::new(10), Mac([2, 0, 0, 0, 0, last]));
    let at = |nsid, flags| Endpoint {
        ifindex: 7,
        nsid,
        parent: 4,
        mode: 4,
        flags,
    };
    let mut context = context(&[
        (key(1), device(at(1, 0), &["10.0.10.1"])),
        (key(1), device(at(2, 0), &["10.0.10.2"])),
        (key(3), device(at(3, 0), &["10.0.10.9"])),
        (key(4), device(at(4, 0), &["10.0.10.9", "10.0.10.4"])),
        (key(5), device(at(5, 0), &["10.0.10.5"])),
        (key(5), device(at(6, Endpoint::DOWN), &["10.0.10.5"])),
    ]);
    let installed = [
        (key(1), at(1, Endpoint::CONFLICT)),
        (key(3), at(3, 0)),
        (key(4), at(4, 0)),
        (key(5), at(5, 0)),
        // This device existed when the map was written.
        (key(6), at(9, 0)),
    ];
    context.tables.endpoints.extend(installed);
    for (address, last, flags) in [
        ([10, 0, 10, 9], 3, Neighbor::CONFLICT),
        ([10, 0, 10, 5], 5, 0),
        ([10, 0, 10, 6], 6, 0),
    ] {
        let key = NeighborKey::new(Vid::new(10), address.into());
        let mac = [2, 0, 0, 0, 0, last];
        context
            .tables
            .neighbors
            .insert(key, Neighbor { mac, flags });
    }
    let seen = context.seen().into_iter();
    let rows: Vec<_> = seen
        .map(|seen| context.row(seen, ("kernel", None)))
        .map(|row| (row.nsid, some(&row.addresses), row.up, row.conflict))
        .collect();
    let expected = [
        (1, "10.0.10.1", true, true),
        (2, "10.0.10.2", true, true),
        (3, "10.0.10.9", true, true),
        (4, "10.0.10.9,10.0.10.4", true, true),
        (5, "10.0.10.5", true, false),
        (6, "10.0.10.5", false, false),
        (9, "10.0.10.6", true, false),
    ];
    let expected = expected
        .map(|(nsid, address, up, conflict)| (Some(nsid), address.to_owned(), up, conflict));
    assert_eq!(rows, expected);
}

#[test]
fn a_container_with_hundreds_of_addresses_has_a_row_like_any_other() {
    let all: Vec<IpAddr> = (0..720u32).map(|it| IpAddr::V4(it.into())).collect();
    assert_eq!(some(&all), "0.0.0.0,0.0.0.1,0.0.0.2 +717 more");
    assert_eq!(some(&all[..3]), "0.0.0.0,0.0.0.1,0.0.0.2");
    assert_eq!(some(&[]), "-");
}

#[test]
fn json_keeps_its_shape() {
    let key = EndpointKey::new(Vid::new(10), Mac([2, 0x42, 10, 0, 10, 2]));
    let endpoint = Endpoint {
        ifindex: 7,
        nsid: 3,
        parent: 4,
        mode: 4,
        flags: 0,
    };
    let device = device(endpoint, &["10.0.10.2"]);
    let names = Names {
        device: "eth0".into(),
        container: Some("container0".into()),
        network: Some("macvlan10".into()),
        ..Names::default()
    };
    let mut context = context(&[(key, device)]);
    context.tables.endpoints.insert(key, endpoint);
    context.names.insert((key, INSIDE), names);
    let seen = context.seen().remove(0);
    let row = context.row(seen, ("kernel", Some("in another namespace".into())));
    let text = table(std::slice::from_ref(&row));
    assert!(
        text.contains("kernel: in another namespace  bridge"),
        "{text}"
    );
    assert_eq!(
        serde_json::to_value(row).unwrap(),
        serde_json::json!({
            "trunk": "eth0", "vlan": 10, "mac": "02:42:0a:00:0a:02", "addresses": ["10.0.10.2"],
            "device": "eth0", "ifindex": 7, "nsid": 3, "kind": "macvlan", "mode": "bridge",
            "parent": "eth0.10", "container": "container0", "network": "macvlan10",
            "project": null, "service": null, "up": true, "conflict": false, "claimed_by_wire": null,
            "deliver": "kernel", "redirect_blocked_by": "in another namespace",
            "detour": "in another namespace",
        })
    );
}

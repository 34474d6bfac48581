//! `vlanfast endpoints`: who is behind the trunk, according to the maps; the names come from netlink
//! and Docker.

mod delivery;

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use serde::Serialize;
use vlanfast_common::{Endpoint, EndpointKey, Neighbor};

use self::delivery::Delivery;
use super::attached;
use crate::{
    cli::EndpointsArgs,
    datapath::{check_kernel, pins::Pins, tables::Maps},
    netlink::{Inventory, Netlink},
    output,
    source::docker,
    state::{
        desired::{Tables, desired},
        names::{Names, names},
        snapshot::{Docker, Ifindex, Mode, Network},
    },
};

/// Docker gives names alone: what it does not say in this time is left out.
const PATIENCE: Duration = Duration::from_secs(2);

/// The shape of a row of `endpoints --json`.
#[derive(Debug, PartialEq, Serialize)]
struct Row {
    trunk: String,
    vlan: u16,
    mac: String,
    addresses: Vec<IpAddr>,
    /// Its name in its namespace; null where that can't be asked any more.
    device: Option<String>,
    /// In its namespace.
    ifindex: u32,
    /// As `ip netns list-id` numbers it; null for the trunk's own.
    nsid: Option<i32>,
    kind: &'static str,
    mode: Option<String>,
    parent: Option<String>,
    container: Option<String>,
    network: Option<String>,
    project: Option<String>,
    service: Option<String>,
    /// Another device of the VLAN has its MAC or one of its addresses.
    conflict: bool,
    /// How unicast from the wire reaches it: `kernel` or `redirect`.
    deliver: &'static str,
    /// Why it is not `redirect` where that is asked for.
    detour: Option<String>,
}

pub async fn run(args: &EndpointsArgs) -> anyhow::Result<()> {
    check_kernel()?;
    let trunks = attached(args.trunk.as_ref()).await?;
    let kernel = Netlink::connect()?;
    let mut netlink = Inventory::open().await?;
    netlink.refresh().await?;
    let (docker, _) = docker::list_once(&args.docker, PATIENCE).await;
    let mut all = vec![];
    for pins in &trunks {
        all.extend(read(&kernel, pins, netlink.network(), &docker).await?);
    }
    match args.json {
        true => output::json(&all),
        false => output::text(&table(&all)),
    }
}

async fn read(
    kernel: &Netlink,
    pins: &Pins,
    network: &Network,
    docker: &Docker,
) -> anyhow::Result<Vec<Row>> {
    let maps = Maps::open(pins)?;
    let trunk = pins.trunk.to_string();
    let settings = maps.settings()?;
    let delivery = Delivery::read(kernel, pins, &settings).await?;
    let desired = desired(network, Ifindex(settings.ifindex));
    let mut names = names(&desired, docker);
    let parents: BTreeMap<_, _> = desired
        .devices
        .iter()
        .map(|(key, device)| (*key, device.parent.to_string()))
        .collect();
    let tables = maps.read()?;
    let mut addresses = addresses(&tables);
    let endpoints = tables
        .endpoints
        .iter()
        .filter(|(_, endpoint)| !endpoint.has(Endpoint::HOST));
    Ok(endpoints
        .map(|(key, endpoint)| {
            let addresses = addresses.remove(key).unwrap_or_default();
            row(
                &trunk,
                *key,
                endpoint,
                addresses,
                names.remove(key),
                parents.get(key),
                delivery.to(tables.vlans.get(&key.vid()), endpoint),
            )
        })
        .collect())
}

/// The addresses of each endpoint, and whether each is someone else's too.
fn addresses(tables: &Tables) -> BTreeMap<EndpointKey, Vec<(IpAddr, bool)>> {
    let mut addresses = BTreeMap::<_, Vec<_>>::new();
    for (key, neighbor) in &tables.neighbors {
        let owner = EndpointKey {
            vid: key.vid,
            mac: neighbor.mac,
        };
        let address = (key.address(), neighbor.has(Neighbor::CONFLICT));
        addresses.entry(owner).or_default().push(address);
    }
    addresses
}

fn row(
    trunk: &str,
    key: EndpointKey,
    endpoint: &Endpoint,
    addresses: Vec<(IpAddr, bool)>,
    names: Option<Names>,
    parent: Option<&String>,
    (deliver, detour): (&'static str, Option<String>),
) -> Row {
    let device = names.as_ref().map(|names| names.device.clone());
    let names = names.unwrap_or_default();
    Row {
        trunk: trunk.to_owned(),
        vlan: key.vid,
        mac: key.mac().to_string(),
        addresses: addresses.iter().map(|(address, _)| *address).collect(),
        device,
        ifindex: endpoint.ifindex,
        nsid: (endpoint.nsid != Endpoint::OWN_NAMESPACE).then_some(endpoint.nsid),
        kind: if endpoint.has(Endpoint::MACVTAP) {
            "macvtap"
        } else {
            "macvlan"
        },
        mode: Mode::from_number(endpoint.mode.into()).map(|mode| mode.to_string()),
        parent: parent.cloned(),
        container: names.container,
        network: names.network,
        project: names.project,
        service: names.service,
        conflict: endpoint.has(Endpoint::CONFLICT)
            || addresses.iter().any(|(_, conflict)| *conflict),
        deliver,
        detour,
    }
}

fn table(rows: &[Row]) -> String {
    if rows.is_empty() {
        return "no endpoints\n".into();
    }
    const HEAD: [&str; 8] = [
        "trunk",
        "vlan",
        "mac",
        "addresses",
        "container",
        "network",
        "device",
        "nsid",
    ];
    // Where the kernel delivers all of it there is nothing to tell apart.
    let tells = rows
        .iter()
        .any(|row| row.deliver != "kernel" || row.detour.is_some());
    let rest = if tells {
        &["deliver", "mode"][..]
    } else {
        &["mode"]
    };
    let head = HEAD.iter().chain(rest);
    let mut lines = vec![head.map(|&word| word.to_owned()).collect::<Vec<_>>()];
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
    for row in rows {
        let addresses: Vec<_> = row.addresses.iter().map(IpAddr::to_string).collect();
        let mut mode = or_dash(&row.mode);
        if row.conflict {
            mode += "  conflict: its MAC or an address is someone else's too";
        }
        let mut line = vec![
            row.trunk.clone(),
            row.vlan.to_string(),
            row.mac.clone(),
            if addresses.is_empty() {
                "-".into()
            } else {
                addresses.join(",")
            },
            or_dash(&row.container),
            or_dash(&row.network),
            or_dash(&row.device),
            row.nsid.map_or_else(|| "-".into(), |nsid| nsid.to_string()),
        ];
        if tells {
            line.push(match &row.detour {
                None => row.deliver.to_owned(),
                Some(why) => format!("{}: {why}", row.deliver),
            });
        }
        line.push(mode);
        lines.push(line);
    }
    output::list(&lines)
}

#[cfg(test)]
mod tests {
    use vlanfast_common::{Mac, NeighborKey, Vid};

    use super::*;

    #[test]
    fn json_keeps_its_shape() {
        let key = EndpointKey::new(Vid::from_tci(10), Mac([2, 0x42, 10, 0, 10, 2]));
        let endpoint = Endpoint {
            ifindex: 7,
            nsid: 3,
            parent: 4,
            mode: 4,
            flags: 0,
        };
        let mut tables = Tables::default();
        let address = NeighborKey::new(Vid::from_tci(10), [10, 0, 10, 2].into());
        tables.neighbors.insert(
            address,
            Neighbor {
                mac: key.mac,
                flags: 0,
            },
        );
        let addresses = addresses(&tables).remove(&key).unwrap();
        let names = Names {
            device: "eth0".into(),
            container: Some("container0".into()),
            network: Some("macvlan10".into()),
            ..Names::default()
        };
        let parent = "eth0.10".to_owned();
        let row = row(
            "eth0",
            key,
            &endpoint,
            addresses,
            Some(names),
            Some(&parent),
            ("kernel", Some("in another namespace".into())),
        );
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
                "project": null, "service": null, "conflict": false,
                "deliver": "kernel", "detour": "in another namespace",
            })
        );
    }
}

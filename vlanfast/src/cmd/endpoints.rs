//! `vlanfast endpoints`: shows the endpoints on the trunk that are in the maps, with names from netlink and Docker.

mod delivery;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use serde::Serialize;
use vlanfast_common::{Endpoint, EndpointKey, Mac, Neighbor, NeighborKey};

use self::delivery::DeliveryReport;
use crate::{
    cli::EndpointsArgs,
    cmd::trunks::attached,
    hooks::check_requirements,
    maps::tables::TableMaps,
    names::docker,
    netlink::{Inventory, Netlink},
    output,
    pins::Pins,
    state::{
        address_owners::Given,
        claims::conflicts,
        desired::desired,
        names::{Names, names},
        snapshot::{DeviceId, Docker, Ifindex, Mode, Nsid, Snapshot},
        tables::{Desired, DesiredTables, EndpointDevice},
    },
};

/// How long Docker may take to answer. Without its answer, rows have no container names, and an address that two
/// endpoints claim belongs to neither.
const PATIENCE: Duration = Duration::from_secs(2);

/// The shape of a row of `endpoints --json`.
#[derive(Debug, PartialEq, Serialize)]
struct EndpointRow {
    trunk: String,
    vlan: u16,
    mac: String,
    addresses: Vec<IpAddr>,
    /// The device's name in its network namespace; null if it can't be read any more.
    device: Option<String>,
    /// The device's index in its network namespace.
    ifindex: u32,
    /// The network namespace by its number in `ip netns list-id`; null for the trunk's own.
    nsid: Option<i32>,
    kind: &'static str,
    mode: Option<String>,
    parent: Option<String>,
    container: Option<String>,
    network: Option<String>,
    project: Option<String>,
    service: Option<String>,
    /// Whether the device is up. A device that is down receives nothing and is in conflict with no other.
    up: bool,
    /// Another device on the VLAN has its MAC or one of its addresses.
    conflict: bool,
    /// The MAC of the host on the wire that claims one of its addresses, or that uses its MAC.
    claimed_by_wire: Option<String>,
    /// How unicast from the wire is delivered to it: `kernel` or `redirect`.
    deliver: &'static str,
    /// Why frames are not redirected to it although `--deliver redirect` asks for that.
    redirect_blocked_by: Option<String>,
    /// The earlier name of `redirect_blocked_by`.
    detour: Option<String>,
}

pub async fn run(args: &EndpointsArgs) -> anyhow::Result<()> {
    check_requirements()?;
    let trunks = attached(args.trunk.as_ref()).await?;
    let kernel = Netlink::connect()?;
    let mut netlink = Inventory::open().await?;
    netlink.refresh().await?;
    let (docker, _) = docker::list_once(&args.docker, PATIENCE).await;
    let mut all = vec![];
    for pins in &trunks {
        all.extend(read(&kernel, pins, netlink.snapshot(), &docker).await?);
    }
    match args.json {
        true => output::json(&all),
        false => output::text(&table(&all)),
    }
}

async fn read(
    kernel: &Netlink,
    pins: &Pins,
    network: &Snapshot,
    docker: &Docker,
) -> anyhow::Result<Vec<EndpointRow>> {
    let maps = TableMaps::open(pins)?;
    let trunk = pins.trunk.to_string();
    let settings = maps.settings()?;
    let delivery = DeliveryReport::read(kernel, pins, &settings).await?;
    let desired = desired(network, Ifindex(settings.ifindex), &Given::by(docker));
    let names = names(&desired, docker);
    let tables = maps.read()?;
    let claims = maps.claims()?;
    let claimed = conflicts(&tables, &claims).map(|conflict| {
        let key = conflict.key.endpoint(conflict.receiver);
        (key, Mac(conflict.by).to_string())
    });
    let claimed = claimed.collect();
    let rivals = desired.rivals.iter();
    let rivals = rivals.flat_map(|(key, macs)| macs.iter().map(|mac| key.endpoint(*mac)));
    let rivals = rivals.collect();
    let context = Context {
        claimed,
        rivals,
        trunk,
        tables,
        desired,
        names,
    };
    let to = |vid, endpoint: &Endpoint| delivery.to(context.tables.vlans.get(&vid), endpoint);
    let rows = context.seen().into_iter().map(|seen| {
        let delivered = to(seen.key.vid(), &seen.endpoint);
        context.row(seen, delivered)
    });
    Ok(rows.collect())
}

/// An endpoint: the device with an entry in `ENDPOINTS`, or another one with the same MAC.
struct Seen<'a> {
    key: EndpointKey,
    endpoint: Endpoint,
    /// `None` if the device can't be read any more.
    device: Option<(DeviceId, &'a EndpointDevice)>,
}

/// Everything that rows are made of.
struct Context {
    trunk: String,
    /// The entries of the maps.
    tables: DesiredTables,
    /// What netlink shows.
    desired: Desired,
    names: BTreeMap<(EndpointKey, DeviceId), Names>,
    /// The MAC of the host on the wire that claims an address of an endpoint.
    claimed: BTreeMap<EndpointKey, String>,
    /// The endpoints that claim an address which belongs to another.
    rivals: BTreeSet<EndpointKey>,
}

impl Context {
    /// The endpoints with an entry in the map, and other devices with the same MAC.
    fn seen(&self) -> Vec<Seen<'_>> {
        let mut seen = vec![];
        for (&key, &entry) in &self.tables.endpoints {
            let all =
                (key, (Nsid::Own, Ifindex(0)))..=(key, (Nsid::Other(i32::MAX), Ifindex(u32::MAX)));
            let mut is_there = entry.has(Endpoint::HOST);
            for (&(key, place), device) in self.desired.devices.range(all) {
                let mut endpoint = device.endpoint;
                is_there |= (endpoint.nsid, endpoint.ifindex) == (entry.nsid, entry.ifindex);
                if !endpoint.has(Endpoint::DOWN) {
                    endpoint.flags |= entry.flags & Endpoint::CONFLICT;
                }
                let device = Some((place, device));
                seen.push(Seen {
                    key,
                    endpoint,
                    device,
                });
            }
            if !is_there {
                seen.push(Seen {
                    key,
                    endpoint: entry,
                    device: None,
                });
            }
        }
        seen
    }

    fn addresses(&self, seen: &Seen<'_>) -> Vec<IpAddr> {
        match seen.device {
            Some((_, device)) => device.addresses.clone(),
            None => {
                let neighbors = self.tables.neighbors.iter();
                let is_its = |(key, neighbor): &(&NeighborKey, &Neighbor)| {
                    (key.vid, neighbor.mac) == (seen.key.vid, seen.key.mac)
                };
                neighbors
                    .filter(is_its)
                    .map(|(key, _)| key.address())
                    .collect()
            }
        }
    }

    /// Whether another device, on this host or on the wire, claims an address as well.
    fn is_claimed_twice(&self, key: EndpointKey, address: IpAddr) -> bool {
        let key = NeighborKey::new(key.vid(), address);
        let tables = [&self.tables, &self.desired.tables];
        let mut known = tables.iter().filter_map(|it| it.neighbors.get(&key));
        known.any(|it| it.has(Neighbor::CONFLICT | Neighbor::FOREIGN))
    }

    fn row(
        &self,
        seen: Seen<'_>,
        (deliver, blocked): (&'static str, Option<String>),
    ) -> EndpointRow {
        let addresses = self.addresses(&seen);
        let Seen {
            key,
            endpoint,
            device,
        } = seen;
        let up = !endpoint.has(Endpoint::DOWN);
        let mut claims = addresses.iter();
        let is_claimed_twice = up && claims.any(|address| self.is_claimed_twice(key, *address));
        let names = device.and_then(|(place, _)| self.names.get(&(key, place)).cloned());
        let name = names.as_ref().map(|names| names.device.clone());
        let claimed_by_wire = self.claimed.get(&key).filter(|_| up).cloned();
        let is_rival = up && self.rivals.contains(&key);
        let names = names.unwrap_or_default();
        EndpointRow {
            trunk: self.trunk.clone(),
            vlan: key.vid,
            mac: key.mac().to_string(),
            addresses,
            device: name,
            ifindex: endpoint.ifindex,
            nsid: (endpoint.nsid != Endpoint::OWN_NAMESPACE).then_some(endpoint.nsid),
            kind: match endpoint.has(Endpoint::MACVTAP) {
                true => "macvtap",
                false => "macvlan",
            },
            mode: Mode::from_number(endpoint.mode.into()).map(|mode| mode.to_string()),
            parent: device.map(|(_, device)| device.parent.to_string()),
            container: names.container,
            network: names.network,
            project: names.project,
            service: names.service,
            up,
            conflict: is_claimed_twice
                || is_rival
                || claimed_by_wire.is_some()
                || endpoint.has(Endpoint::CONFLICT),
            claimed_by_wire,
            deliver,
            detour: blocked.clone(),
            redirect_blocked_by: blocked,
        }
    }
}

fn table(rows: &[EndpointRow]) -> String {
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
    // The column is left out if the kernel delivers to all endpoints.
    let shows_delivery = rows
        .iter()
        .any(|row| row.deliver != "kernel" || row.redirect_blocked_by.is_some());
    let rest = if shows_delivery {
        &["deliver", "mode"][..]
    } else {
        &["mode"]
    };
    let head = HEAD.iter().chain(rest);
    let mut lines = vec![head.map(|&word| word.to_owned()).collect::<Vec<_>>()];
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
    for row in rows {
        let mut mode = or_dash(&row.mode);
        if !row.up {
            mode += "  down";
        }
        if row.claimed_by_wire.as_ref() == Some(&row.mac) {
            mode += "  conflict: a host on the wire has the same MAC";
        } else if let Some(by) = &row.claimed_by_wire {
            mode += &format!("  conflict: {by} on the wire claims one of its addresses");
        } else if row.conflict {
            mode += "  conflict: another device has the same MAC or one of its addresses";
        }
        let mut line = vec![
            row.trunk.clone(),
            row.vlan.to_string(),
            row.mac.clone(),
            some(&row.addresses),
            or_dash(&row.container),
            or_dash(&row.network),
            or_dash(&row.device),
            row.nsid.map_or_else(|| "-".into(), |nsid| nsid.to_string()),
        ];
        if shows_delivery {
            line.push(match &row.redirect_blocked_by {
                None => row.deliver.to_owned(),
                Some(why) => format!("{}: {why}", row.deliver),
            });
        }
        line.push(mode);
        lines.push(line);
    }
    output::list(&lines)
}

/// The first addresses and the number of the others, so that one endpoint with many addresses does not make all rows
/// wide.
fn some(addresses: &[IpAddr]) -> String {
    const SHOWN: usize = 3;
    let shown: Vec<_> = addresses
        .iter()
        .take(SHOWN)
        .map(IpAddr::to_string)
        .collect();
    match addresses.len() {
        0 => "-".into(),
        1..=SHOWN => shown.join(","),
        all => format!("{} +{} more", shown.join(","), all - SHOWN),
    }
}

#[cfg(test)]
mod tests;

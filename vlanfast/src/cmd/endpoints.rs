//! `vlanfast endpoints`: who is behind the trunk, according to the maps; the names come from netlink
//! and Docker.

mod delivery;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use serde::Serialize;
use vlanfast_common::{Endpoint, EndpointKey, Mac, Neighbor, NeighborKey};

use self::delivery::Delivery;
use super::attached;
use crate::{
    cli::EndpointsArgs,
    hooks::check_kernel,
    maps::tables::Maps,
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

/// Without Docker's word, rows have no names, and an address that two claim is neither's: what it does not say in
/// this time is left out.
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
    /// One that is down takes nothing, and is in conflict with nobody.
    up: bool,
    /// Another of the VLAN that is up has its MAC or one of its addresses.
    conflict: bool,
    /// The MAC of who says on the wire that he has one of its addresses; its own where he has that.
    claimed_by_wire: Option<String>,
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
    network: &Snapshot,
    docker: &Docker,
) -> anyhow::Result<Vec<Row>> {
    let maps = Maps::open(pins)?;
    let trunk = pins.trunk.to_string();
    let settings = maps.settings()?;
    let delivery = Delivery::read(kernel, pins, &settings).await?;
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

/// An endpoint: the device that has an entry, or another with the same MAC.
struct Seen<'a> {
    key: EndpointKey,
    endpoint: Endpoint,
    /// `None` where it can't be asked any more.
    device: Option<(DeviceId, &'a EndpointDevice)>,
}

/// What rows are made of.
struct Context {
    trunk: String,
    /// What is in the maps.
    tables: DesiredTables,
    /// What netlink shows now.
    desired: Desired,
    names: BTreeMap<(EndpointKey, DeviceId), Names>,
    /// The MAC of who has an address of a receiver on the wire.
    claimed: BTreeMap<EndpointKey, String>,
    /// Those that say they have an address which another keeps.
    rivals: BTreeSet<EndpointKey>,
}

impl Context {
    /// Whoever has an entry in the map, and whoever shares his MAC.
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

    /// Whether somebody else claims an address, here or on the wire.
    fn is_disputed(&self, key: EndpointKey, address: IpAddr) -> bool {
        let key = NeighborKey::new(key.vid(), address);
        let tables = [&self.tables, &self.desired.tables];
        let mut known = tables.iter().filter_map(|it| it.neighbors.get(&key));
        known.any(|it| it.has(Neighbor::CONFLICT | Neighbor::FOREIGN))
    }

    fn row(&self, seen: Seen<'_>, (deliver, detour): (&'static str, Option<String>)) -> Row {
        let addresses = self.addresses(&seen);
        let Seen {
            key,
            endpoint,
            device,
        } = seen;
        let up = !endpoint.has(Endpoint::DOWN);
        let mut claims = addresses.iter();
        let is_disputed = up && claims.any(|address| self.is_disputed(key, *address));
        let names = device.and_then(|(place, _)| self.names.get(&(key, place)).cloned());
        let name = names.as_ref().map(|names| names.device.clone());
        let claimed_by_wire = self.claimed.get(&key).filter(|_| up).cloned();
        let is_rival = up && self.rivals.contains(&key);
        let names = names.unwrap_or_default();
        Row {
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
            conflict: is_disputed
                || is_rival
                || claimed_by_wire.is_some()
                || endpoint.has(Endpoint::CONFLICT),
            claimed_by_wire,
            deliver,
            detour,
        }
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
        let mut mode = or_dash(&row.mode);
        if !row.up {
            mode += "  down";
        }
        if row.claimed_by_wire.as_ref() == Some(&row.mac) {
            mode += "  conflict: somebody on the wire has its MAC, too";
        } else if let Some(by) = &row.claimed_by_wire {
            mode += &format!("  conflict: {by} on the wire has an address of it, too");
        } else if row.conflict {
            mode += "  conflict: its MAC or an address is someone else's too";
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

/// The first addresses, and how many more there are: nobody makes everybody's rows as wide as his own.
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

//! `vlanfast counters`: shows packets and bytes of each VLAN.

use std::time::Duration;

use serde::{Serialize, Serializer};
use vlanfast_common::{Counters, Reason, Tally, Vid, Vlan};

use crate::{
    cli::CountersArgs, cmd::trunks::attached, hooks::check_requirements,
    maps::counters::CounterMap, output, pins::Pins,
};

/// The shape of a row of `counters --json`.
#[derive(Serialize)]
struct CounterRow {
    trunk: String,
    /// The VID; null for frames without one.
    vlan: Option<u16>,
    tag: &'static str,
    rx: Side,
    tx: Side,
    verdicts: Verdicts,
    drops: Named<{ Reason::ALL.len() }>,
    /// Packets for an address that two endpoints claim. They are passed to everyone.
    conflict: u64,
    /// The earlier name of `conflict`.
    disputed: u64,
}

#[derive(Serialize)]
struct Side {
    packets: Named<3>,
    bytes: u64,
}

#[derive(Serialize)]
struct Verdicts {
    rx: Named<4>,
    tx: Named<3>,
}

/// Named numbers: an object in JSON.
struct Named<const N: usize>([(&'static str, u64); N]);

impl<const N: usize> Serialize for Named<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0)
    }
}

pub async fn run(args: &CountersArgs) -> anyhow::Result<()> {
    check_requirements()?;
    loop {
        let mut rows = vec![];
        for pins in attached(args.trunk.as_ref()).await? {
            rows.extend(read(&pins, args.vlan)?);
        }
        match (args.json, args.watch) {
            (true, _) => output::json(&rows)?,
            (false, true) => output::screen(&table(&rows))?,
            (false, false) => output::text(&table(&rows))?,
        }
        if !args.watch {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// The counters of all VLANs that had traffic, or of one VLAN, whether it had traffic or not.
fn read(pins: &Pins, vlan: Option<u16>) -> anyhow::Result<Vec<CounterRow>> {
    let map = CounterMap::open(pins)?;
    let trunk = pins.trunk.to_string();
    let only = vlan.map(|vlan| Vlan::id(Vid::new(vlan)));
    let mut rows = vec![];
    for vlan in Vlan::all().filter(|vlan| only.is_none_or(|only| only == *vlan)) {
        let counters = map.read(vlan)?;
        if only.is_some() || counters != Counters::default() {
            rows.push(row(&trunk, vlan, &counters));
        }
    }
    Ok(rows)
}

fn row(trunk: &str, vlan: Vlan, counters: &Counters) -> CounterRow {
    CounterRow {
        trunk: trunk.to_owned(),
        vlan: vlan.vid().map(Vid::get),
        tag: vlan.tag(),
        rx: side(&counters.rx),
        tx: side(&counters.tx),
        verdicts: Verdicts {
            rx: Named(counters.rx_verdicts()),
            tx: Named(counters.tx_verdicts()),
        },
        drops: Named(counters.drops()),
        conflict: counters.disputed,
        disputed: counters.disputed,
    }
}

fn side(tally: &Tally) -> Side {
    Side {
        packets: Named(tally.by_cast()),
        bytes: tally.bytes,
    }
}

fn table(rows: &[CounterRow]) -> String {
    const HEAD: [&str; 15] = [
        "trunk",
        "vlan",
        "rx unicast",
        "multicast",
        "broadcast",
        "bytes",
        "steered",
        "delivered",
        "dropped",
        "tx unicast",
        "multicast",
        "broadcast",
        "bytes",
        "reflected",
        "shortcut",
    ];
    let mut lines = vec![HEAD.map(str::to_owned).to_vec()];
    for row in rows {
        let mut line = vec![row.trunk.clone()];
        line.push(match row.vlan {
            Some(vlan) if vlan != 0 => vlan.to_string(),
            _ => row.tag.to_owned(),
        });
        // The first verdict is to pass, which is not shown.
        let Verdicts {
            rx: Named([_, rx @ ..]),
            tx: Named([_, tx @ ..]),
        } = &row.verdicts;
        for (side, verdicts) in [(&row.rx, &rx[..]), (&row.tx, &tx[..])] {
            line.extend(side.packets.0.map(|(_, packets)| packets.to_string()));
            line.push(side.bytes.to_string());
            line.extend(verdicts.iter().map(|(_, packets)| packets.to_string()));
        }
        lines.push(line);
    }
    output::table(&lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_keeps_its_shape() {
        let rx = Tally {
            packets: [1, 2, 3],
            bytes: 600,
        };
        let counters = Counters {
            rx,
            steered: 2,
            dropped: [1, 0, 0, 0, 0],
            disputed: 1,
            delivered: 1,
            ..Counters::default()
        };
        let row = row("eth0", Vlan::id(Vid::new(10)), &counters);
        assert_eq!(
            serde_json::to_value(row).unwrap(),
            serde_json::json!({
                "trunk": "eth0", "vlan": 10, "tag": "802.1Q",
                "rx": {"packets": {"unicast": 1, "multicast": 2, "broadcast": 3}, "bytes": 600},
                "tx": {"packets": {"unicast": 0, "multicast": 0, "broadcast": 0}, "bytes": 0},
                "verdicts": {"rx": {"pass": 2, "steer": 2, "deliver": 1, "drop": 1},
                             "tx": {"pass": 0, "reflect": 0, "shortcut": 0}},
                "drops": {"storm": 1, "shed_vlan": 0, "shed_mac": 0, "returned": 0, "group": 0},
                "conflict": 1, "disputed": 1,
            })
        );
    }

    #[test]
    fn frames_without_a_vid_do_not_count_for_vlan_0() {
        for vlan in [Vlan::SERVICE, Vlan::TRUNCATED] {
            assert_eq!(row("eth0", vlan, &Counters::default()).vlan, None);
        }
    }
}

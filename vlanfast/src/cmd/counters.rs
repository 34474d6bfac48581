//! `vlanfast counters`: packets and bytes of each VLAN.

use std::time::Duration;

use serde::{Serialize, Serializer};
use vlanfast_common::{Counters, Reason, Tally, Vid, Vlan};

use super::attached;
use crate::{
    cli::CountersArgs, hooks::check_kernel, maps::counters::CounterMap, output, pins::Pins,
};

/// The shape of a row of `counters --json`.
#[derive(Serialize)]
struct Row {
    trunk: String,
    /// The VID; null for frames that have none.
    vlan: Option<u16>,
    tag: &'static str,
    rx: Side,
    tx: Side,
    verdicts: Verdicts,
    drops: Named<{ Reason::ALL.len() }>,
    /// Packets for an address that two receivers claim, passed to everyone.
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

/// Numbers by their names: an object in JSON.
struct Named<const N: usize>([(&'static str, u64); N]);

impl<const N: usize> Serialize for Named<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0)
    }
}

pub async fn run(args: &CountersArgs) -> anyhow::Result<()> {
    check_kernel()?;
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

/// The VLANs that had traffic; or the one asked for, whether it had or not.
fn read(pins: &Pins, vlan: Option<u16>) -> anyhow::Result<Vec<Row>> {
    let map = CounterMap::open(pins)?;
    let trunk = pins.trunk.to_string();
    let asked = vlan.map(|vlan| Vlan::id(Vid::new(vlan)));
    let mut rows = vec![];
    for vlan in Vlan::all().filter(|vlan| asked.is_none_or(|asked| asked == *vlan)) {
        let counters = map.read(vlan)?;
        if asked.is_some() || counters != Counters::default() {
            rows.push(row(&trunk, vlan, &counters));
        }
    }
    Ok(rows)
}

fn row(trunk: &str, vlan: Vlan, counters: &Counters) -> Row {
    Row {
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
        disputed: counters.disputed,
    }
}

fn side(tally: &Tally) -> Side {
    Side {
        packets: Named(tally.by_cast()),
        bytes: tally.bytes,
    }
}

fn table(rows: &[Row]) -> String {
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
        // The first of the verdicts is to pass.
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
                "disputed": 1,
            })
        );
    }

    #[test]
    fn frames_without_a_vid_are_never_billed_to_vlan_0() {
        for vlan in [Vlan::SERVICE, Vlan::TRUNCATED] {
            assert_eq!(row("eth0", vlan, &Counters::default()).vlan, None);
        }
    }
}

//! TCP in bulk into a container, by a virtio NIC that gets whole buffers from its host (`rx-gro-hw`), as a virtual
//! machine's does.

use std::{fs, time::Instant};

use anyhow::{Context, Result};
use vlanfast_tests::{
    net::{
        bulk::{BulkConnection, MEGABYTE},
        namespace::Netns,
        topology::{WIRE, Wire},
    },
    run::program::Attached,
};

use crate::{bench::Bench, report, rows::Rows};

const TABLE: &str = "virtio-bulk";
const VID: u16 = 10;
/// Megabytes that are measured of a connection.
const ROUND: u32 = 30;

/// The rows, and the hook that each asks for.
const ROWS: [(&str, Option<&str>); 3] = [
    ("kernel alone", None),
    ("vlanfast, auto", Some("auto")),
    ("vlanfast, XDP", Some("xdp")),
];

pub fn bulk(bench: &mut Bench) -> Result<()> {
    let wire = Wire::virtio()?;
    wire.vlan(VID)?;
    let address = format!("ip addr add 10.0.{VID}.1/24 dev {WIRE}.{VID}");
    wire.router.run(&address)?;
    let container = wire.container(VID, &format!("10.0.{VID}.2"))?;
    let rows = match bench.rows {
        Rows::Kernel => &ROWS[..1],
        Rows::Vlanfast | Rows::All => &ROWS[..],
    };
    let mut costs = vec![vec![]; rows.len()];
    // In turn, so that what the host does meanwhile meets all of them.
    for round in 1..=if bench.effort.quick { 3 } else { 5 } {
        report::step(&format!("{TABLE}: round {round}"));
        for ((row, ingress), costs) in rows.iter().zip(&mut costs) {
            let cost = with(&wire, &container, *ingress);
            costs.push(cost.with_context(|| format!("failed to measure {row}"))?);
        }
    }
    for ((row, _), costs) in rows.iter().zip(costs) {
        for (place, column) in ["buffers/MB", "instructions/MB"].into_iter().enumerate() {
            let costs = costs.iter().map(|cost| cost[place]);
            report::figure(TABLE, row, column, median(costs.collect()));
        }
    }
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Buffers from the driver and instructions for a megabyte, with vlanfast at this hook.
fn with(wire: &Wire, container: &Netns, ingress: Option<&str>) -> Result<[f64; 2]> {
    let attach = |ingress| {
        let arguments = ["--ingress", ingress, "--docker", "off", "--metrics", "off"];
        Attached::start(&wire.host, &wire.trunk, &arguments)
    };
    let attached = ingress.map(attach).transpose()?;
    let connection = BulkConnection::open(&wire.router, container, [10, 0, VID as u8, 2].into())?;
    // Until its window has opened, and pools are filled.
    connection.transfer(10 * MEGABYTE)?;
    let received = || Wire::statistic(&wire.host, &wire.trunk, "rx_packets");
    let (buffers, (start, idle)) = (received()?, (Instant::now(), idle()?));
    connection.transfer(ROUND as usize * MEGABYTE)?;
    let busy = start.elapsed().as_nanos() as f64 - (self::idle()? - idle);
    let buffers = received()? - buffers;
    attached.map_or(Ok(()), Attached::stop)?;
    Ok([buffers as f64, busy].map(|sum| sum / f64::from(ROUND)))
}

/// For how many nanoseconds the one CPU had nothing to do: it waits for the host, which is no instruction's time.
/// Nothing else shows it more exactly than in hundredths of a second.
fn idle() -> Result<f64> {
    let path = "/proc/timer_list";
    let text = fs::read_to_string(path).with_context(|| format!("failed to read {path}"))?;
    let line = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let value = value.trim().strip_suffix(" nsecs")?;
        (name.trim() == ".idle_sleeptime").then(|| value.parse().ok())?
    });
    line.with_context(|| format!("{path} has no .idle_sleeptime"))
}

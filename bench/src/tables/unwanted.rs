//! What it costs to drop frames that have no receiver on this host.

use anyhow::{Context, Result};

use crate::{
    bench::Bench,
    contender::Contender,
    frame::{Fate, NOBODY, TRUNK_MAC, VID, datagram},
    measure::FRAMES,
    netns::Inside,
    report,
};

const CONTENDERS: [Contender; 6] = [
    Contender::Kernel,
    Contender::Tc,
    Contender::Xdp,
    Contender::TcShedding,
    Contender::XdpShedding,
    Contender::DroppingXdp,
];

/// A VLAN without a device.
const OTHER: u16 = 99;

pub fn unwanted(bench: &mut Bench) -> Result<()> {
    let table = "unwanted";
    let own = bench.generator.own_cost(bench.effort, FRAMES)?;
    for contender in bench.rows(&CONTENDERS) {
        let row = contender.name();
        report::step(&format!("{table}: {row}"));
        let network = contender
            .build()
            .with_context(|| format!("failed to set up: {row}"))?;
        for (column, mac, vid) in [
            ("a VLAN that nobody has", network.mac, OTHER),
            ("a MAC that nobody has", NOBODY, VID),
        ] {
            bench
                .generator
                .aim(&network.wire.router, datagram(mac, vid, Fate::Dropped))?;
            let _inside = Inside::enter(&network.wire.router)?;
            let cost = bench
                .effort
                .cost(FRAMES, || bench.generator.inject(FRAMES))?;
            report::figure(table, row, column, cost - own);
        }
    }
    Ok(())
}

/// Frames without a receiver on a real CPU, in frames per second by its clock, without the generator. There is a trunk
/// alone, for which no module is needed.
pub fn natively(bench: &mut Bench) -> Result<()> {
    let table = "unwanted-native";
    /// Long enough for a clock, short enough for a machine that others use.
    const BATCH: u32 = 20_000;
    let effort = bench.effort.more();
    let own = bench.generator.own_cost(effort, BATCH)?;
    for contender in CONTENDERS {
        let row = contender.name();
        report::step(&format!("{table}: {row}"));
        let network = contender
            .build_trunk()
            .with_context(|| format!("failed to set up: {row}"))?;
        for (column, mac, vid) in [
            ("a VLAN that nobody has", TRUNK_MAC, OTHER),
            ("a MAC that nobody has", NOBODY, 0),
        ] {
            bench
                .generator
                .aim(&network.wire.router, datagram(mac, vid, Fate::Dropped))?;
            let _inside = Inside::enter(&network.wire.router)?;
            let nanoseconds = effort.cost(BATCH, || bench.generator.inject(BATCH))?;
            report::figure(table, row, column, 1e9 / (nanoseconds - own).max(1.0));
        }
    }
    Ok(())
}

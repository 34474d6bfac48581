//! Frames that are for nobody here: how soon the host is rid of them.

use anyhow::{Context, Result};

use crate::{
    Bench,
    contender::Contender,
    frame::{Fate, NOBODY, VID, datagram},
    measure::FRAMES,
    place::Inside,
    report,
    site::TRUNK_MAC,
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
        let site = contender
            .build()
            .with_context(|| format!("failed to set up: {row}"))?;
        for (column, mac, vid) in [
            ("a VLAN that nobody has", site.mac, OTHER),
            ("a MAC that nobody has", NOBODY, VID),
        ] {
            bench
                .generator
                .aim(&site.wire.router, datagram(mac, vid, Fate::Dropped))?;
            let _inside = Inside::enter(&site.wire.router)?;
            let cost = bench
                .effort
                .cost(FRAMES, || bench.generator.inject(FRAMES))?;
            report::figure(table, row, column, cost - own);
        }
    }
    Ok(())
}

/// The same on a real CPU, by its clock, in frames per second, without the generator: a single trunk,
/// for which no module is needed.
pub fn natively(bench: &mut Bench) -> Result<()> {
    let table = "unwanted-native";
    /// Long enough for a clock, short enough for a machine that others use.
    const BATCH: u32 = 20_000;
    let effort = bench.effort.more();
    let own = bench.generator.own_cost(effort, BATCH)?;
    for contender in CONTENDERS {
        let row = contender.name();
        report::step(&format!("{table}: {row}"));
        let site = contender
            .build_trunk()
            .with_context(|| format!("failed to set up: {row}"))?;
        for (column, mac, vid) in [
            ("a VLAN that nobody has", TRUNK_MAC, OTHER),
            ("a MAC that nobody has", NOBODY, 0),
        ] {
            bench
                .generator
                .aim(&site.wire.router, datagram(mac, vid, Fate::Dropped))?;
            let _inside = Inside::enter(&site.wire.router)?;
            let nanoseconds = effort.cost(BATCH, || bench.generator.inject(BATCH))?;
            report::figure(table, row, column, 1e9 / (nanoseconds - own).max(1.0));
        }
    }
    Ok(())
}

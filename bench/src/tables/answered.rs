//! Whether requests that are meant for a container are still answered when a storm of others comes in.

use anyhow::Result;

use super::group::containers;
use crate::{
    bench::Bench,
    containers::{self, Containers},
    contender::Contender,
    frame::VID,
    report,
    rows::Rows,
    storm::Storm,
};

/// The number of containers and the rate that all kernels and protocols are measured with.
const MANY: usize = 200;
const RATE: u64 = 20_000;
/// As fast as a switch lets a loop spin, and as a CPU can send.
const FAST: u64 = 100_000;

pub fn arp(bench: &mut Bench) -> Result<()> {
    let (sizes, rates) = match (bench.rows == Rows::All, bench.effort.quick) {
        (true, false) => (&[16, 64, MANY][..], &[5_000, RATE, FAST][..]),
        (false, false) => (&[MANY][..], &[RATE][..]),
        (_, true) => (&[16][..], &[5_000, RATE, FAST][..]),
    };
    for contender in bench.rows(&Contender::WITH_AND_WITHOUT) {
        for &size in sizes {
            let row = format!("{}, {}", contender.name(), containers(size));
            report::step(&format!("arp-answered: {row}"));
            let network = contender.build()?;
            let containers = Containers::new(&network, size)?;
            let storm = Storm::arp(VID, &containers);
            for &rate in rates {
                let share = storm.rage(&network, rate, bench.storm())?;
                report::figure("arp-answered", &row, &column(rate), 100.0 * share);
            }
        }
    }
    Ok(())
}

pub fn solicitations(bench: &mut Bench) -> Result<()> {
    let size = if bench.effort.quick { 16 } else { MANY };
    for contender in bench.rows(&Contender::WITH_AND_WITHOUT) {
        let row = format!("{}, {}", contender.name(), containers(size));
        report::step(&format!("ns-answered: {row}"));
        let network = contender.build()?;
        let containers = Containers::with_ipv6(&network, size)?;
        let storm = |address| Storm::solicitations(VID, &containers, address);
        for (groups, storm) in [
            ("a group each", storm(containers::address_ipv6)),
            ("one group", storm(containers::address_alike)),
        ] {
            let share = storm.rage(&network, RATE, bench.storm())?;
            let column = format!("{groups}, {}", column(RATE));
            report::figure("ns-answered", &row, &column, 100.0 * share);
        }
    }
    Ok(())
}

/// ARP requests on a real CPU, untagged, for which no module is needed.
pub fn natively(_: &mut Bench) -> Result<()> {
    for contender in Contender::WITH_AND_WITHOUT {
        let row = format!("{}, {}", contender.name(), containers(MANY));
        report::step(&format!("arp-answered-native: {row}"));
        let network = contender.build_on(0)?;
        let containers = Containers::new(&network, MANY)?;
        let storm = Storm::arp(0, &containers);
        let mut best = 0.0_f64;
        for _ in 0..3 {
            best = best.max(storm.rage(&network, FAST, 0.5)?);
        }
        report::figure("arp-answered-native", &row, &column(FAST), 100.0 * best);
    }
    Ok(())
}

impl Bench {
    /// How long a storm lasts, in seconds.
    fn storm(&self) -> f64 {
        if self.effort.quick { 0.2 } else { 1.0 }
    }
}

fn column(rate: u64) -> String {
    format!("{rate} requests/s")
}

//! What a broadcast ARP request costs with many containers on the VLAN.

use anyhow::Result;

use crate::{
    bench::Bench,
    containers::Containers,
    contender::Contender,
    frame::{CONTAINER, VID, arp_request},
    measure::FRAMES,
    netns::Inside,
    report,
};

/// Requests for a host that does not exist.
pub fn cost(bench: &mut Bench) -> Result<()> {
    let contenders = [
        Contender::Kernel,
        Contender::TcOver,
        Contender::XdpOver,
        Contender::TcUnlimited,
    ];
    requests(bench, "broadcast-arp", &contenders, [10, 77, 0, 1])
}

/// Requests for a container that is there, with its answer.
pub fn steered(bench: &mut Bench) -> Result<()> {
    let contenders = Contender::WITH_AND_WITHOUT;
    requests(bench, "steered-arp", &contenders, CONTAINER)
}

fn requests(
    bench: &mut Bench,
    table: &str,
    contenders: &[Contender],
    target: [u8; 4],
) -> Result<()> {
    let own = bench.generator.own_cost(bench.effort, FRAMES)?;
    for contender in bench.rows(contenders) {
        let row = contender.name();
        for size in bench.sizes() {
            report::step(&format!("{table}: {row}, {}", containers(size)));
            let network = contender.build()?;
            let _containers = Containers::new(&network, size)?;
            bench
                .generator
                .aim(&network.wire.router, arp_request(VID, target))?;
            let _inside = Inside::enter(&network.wire.router)?;
            // Each round is `size` times the work, and in a short one it matters more when RCU frees.
            let effort = match size {
                1 => bench.effort.more(),
                16 => bench.effort,
                64 => bench.effort.less(),
                _ => bench.effort.less().less(),
            };
            let before = network.received()?;
            let cost = effort.cost(FRAMES, || bench.generator.inject(FRAMES))?;
            let sent = u64::from(effort.rounds() * FRAMES);
            match network.received()? - before {
                arrived if arrived < sent && !contender.limits() => {
                    // What is dropped on its way is cheap: no figure to compare with.
                    let lost = 100.0 * (sent - arrived) as f64 / sent as f64;
                    report::none(table, row, &containers(size), &format!("{lost:.0} % lost"));
                }
                _ => report::figure(table, row, &containers(size), cost - own),
            }
        }
    }
    Ok(())
}

impl Bench {
    /// How many containers there are on the VLAN.
    fn sizes(&self) -> Vec<usize> {
        match self.effort.quick {
            true => vec![1, 16],
            false => vec![1, 16, 64, 200],
        }
    }
}

/// The column for so many containers.
pub fn containers(size: usize) -> String {
    format!("{size} container{}", if size == 1 { "" } else { "s" })
}

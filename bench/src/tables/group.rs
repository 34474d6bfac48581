//! Broadcast ARP: what a request costs with a crowd of containers on the VLAN, and whether the requests
//! that are meant for one of them are still answered when a storm of others comes in.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use vlanfast_tests::{
    capture::Packets,
    packet::{self, tag},
    topology::{Crowd, WIRE, Wire},
};

use crate::{
    Bench,
    contender::{Contender, ROUTER_MAC, Site, settle},
    frame::{ROUTER, VID},
    measure::{BURST, Priority},
    place::Inside,
    report,
};

/// Requests of a round: macvlan queues 1,000, and its worker may have its turn only after them all.
const REQUESTS: u32 = 512;
/// Every so many requests of a storm, one is for a container that is there.
const PROBE: u64 = 32;
const CONTENDERS: [Contender; 2] = [Contender::Kernel, Contender::Tc];

/// The containers beside the site's own, and the namespaces that they live in.
struct Neighbours {
    size: usize,
    _crowd: Crowd,
}

pub fn cost(bench: &mut Bench) -> Result<()> {
    let table = "broadcast-arp";
    let own = bench.generator.own_cost(bench.effort, REQUESTS)?;
    for contender in bench.rows(&CONTENDERS) {
        let row = contender.name();
        for size in bench.crowds() {
            report::step(&format!("{table}: {row}, {}", containers(size)));
            let site = contender.build()?;
            let _neighbours = populate(&site, size)?;
            bench
                .generator
                .aim(&site.wire.router, request([10, 77, 0, 1]))?;
            let _inside = Inside::enter(&site.wire.router)?;
            // Each round is `size` times the work.
            let effort = match size {
                ..=16 => bench.effort,
                _ => bench.effort.less(),
            };
            let before = site.received()?;
            let cost = effort.cost(REQUESTS, || bench.generator.inject(REQUESTS))?;
            let sent = u64::from(effort.rounds() * REQUESTS);
            match site.received()? - before {
                arrived if arrived < sent => {
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

pub fn answered(bench: &mut Bench) -> Result<()> {
    let table = "arp-answered";
    let seconds = if bench.effort.quick { 0.2 } else { 1.0 };
    for contender in bench.rows(&CONTENDERS) {
        // One container has no crowd to suffer from; on the older kernel, the first row.
        let sizes = bench.crowds().into_iter().skip(1);
        for size in sizes.take(if bench.baseline { 1 } else { usize::MAX }) {
            let row = format!("{}, {}", contender.name(), containers(size));
            report::step(&format!("{table}: {row}"));
            let site = contender.build()?;
            let neighbours = populate(&site, size)?;
            for rate in [5_000, 20_000, 100_000] {
                let share = storm(&site, &neighbours, rate, seconds)?;
                report::figure(table, &row, &format!("{rate} requests/s"), 100.0 * share);
            }
        }
    }
    Ok(())
}

impl Bench {
    /// How many containers there are on the VLAN.
    fn crowds(&self) -> Vec<usize> {
        match self.effort.quick {
            true => vec![1, 16],
            false => vec![1, 16, 64, 200],
        }
    }
}

fn containers(size: usize) -> String {
    format!("{size} container{}", if size == 1 { "" } else { "s" })
}

/// The address of the container with a number; 0 is the site's own.
fn address(number: usize) -> [u8; 4] {
    let [.., high, low] = (number + 2).to_be_bytes();
    [10, 0, 10 + high, low]
}

/// Adds containers to a site until it has `size`.
fn populate(site: &Site, size: usize) -> Result<Neighbours> {
    let crowd = Crowd::new(size - 1)?;
    let trunk = &site.wire.trunk;
    for number in 1..size {
        let name = crowd.name(number - 1);
        let [a, b, c, d] = address(number);
        // IPv6 would have something of its own to say.
        site.wire.host.run(&format!(
            "ip link add link {trunk}.{VID} name c0 type macvlan mode bridge && \
             ip link set c0 netns {name} && \
             ip -n {name} -batch - <<END\n\
             link set c0 name eth0 addrgenmode none\n\
             addr add {a}.{b}.{c}.{d}/16 dev eth0\n\
             link set eth0 up\n\
             END"
        ))?;
    }
    settle();
    Ok(Neighbours {
        size,
        _crowd: crowd,
    })
}

/// A broadcast ARP request (RFC 826) of the router's.
fn request(target: [u8; 4]) -> Vec<u8> {
    let head = [&tag(0, VID)[..], &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]].concat();
    let body = [&head[..], &ROUTER_MAC, &ROUTER, &[0; 6], &target].concat();
    packet::frame(packet::BROADCAST, &body, 64)
}

/// Sends requests at a steady rate, most of them for hosts that do not exist; gives the share of the
/// others that were answered. What the router receives are those answers, and nothing else.
fn storm(site: &Site, neighbours: &Neighbours, rate: u64, seconds: f64) -> Result<f64> {
    let answers = || Wire::statistic(&site.wire.router, WIRE, "rx_packets");
    let before = answers()?;
    let socket = Packets::open(&site.wire.router.path(), WIRE, false)?;
    let absent = request([10, 77, 0, 1]);
    // A storm does not wait for its victims.
    let _priority = Priority::normal()?;
    let (mut sent, mut probes) = (0, 0);
    let start = Instant::now();
    while start.elapsed().as_secs_f64() < seconds {
        let due = (start.elapsed().as_secs_f64() * rate as f64) as u64;
        for _ in 0..due.saturating_sub(sent).min(u64::from(BURST)) {
            sent += 1;
            if sent % PROBE == 0 {
                let number = probes as usize % neighbours.size;
                socket.send(&request(address(number)))?;
                probes += 1;
            } else {
                socket.send(&absent)?;
            }
        }
        sleep(Duration::from_micros(50));
    }
    sleep(Duration::from_secs(1));
    drop(socket);
    let answered = answers()? - before;
    ensure!(probes > 0, "the storm never began");
    Ok(answered as f64 / probes as f64)
}

//! Encodes the report of the reconciler and the counters in Prometheus' text format. This module is pure.
//! `docs/metrics.md` has a row for each metric.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use anyhow::Context;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, prometheus_text},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};
use vlanfast_common::{Counters, Direction, Vlan, VlanPair, VlanPairCounters};

use crate::state::report::Report;

mod state;

/// The prefix of all names. The encoder appends `_total` to the names of counters.
const PREFIX: &str = "vlanfast";

/// The counters of the programs.
#[derive(Debug, Default)]
pub struct Totals {
    pub vlans: Vec<(Vlan, Counters)>,
    /// The counters of learnt flows.
    pub pairs: BTreeMap<VlanPair, VlanPairCounters>,
}

/// How far the programs trust the tables at the time of a scrape.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// Whether the heartbeat is alive. If it is not, every frame is passed.
    pub alive: bool,
    /// The incomplete tables, as bits of `Settings::incomplete`.
    pub incomplete: u32,
}

/// Encodes one scrape. A VLAN has series if the host has a device for it or if it had traffic, and a pair of VLANs if
/// there was a flow.
pub fn encode(published: Arc<Report>, totals: Totals, trust: Trust) -> anyhow::Result<String> {
    let mut registry = Registry::with_prefix(PREFIX);
    registry.register_collector(Box::new(Scrape::new(published, totals, trust)));
    let mut text = String::new();
    prometheus_text::encode(&mut text, &registry).context("failed to write the metrics")?;
    Ok(text)
}

/// The data of one scrape. It is owned, because the registry accepts nothing that is borrowed.
#[derive(Debug)]
struct Scrape {
    published: Arc<Report>,
    vlans: Vec<VlanRow>,
    pairs: BTreeMap<VlanPair, VlanPairCounters>,
    trust: Trust,
}

/// The data of one VLAN.
#[derive(Debug)]
struct VlanRow {
    /// The label: the VID, or a word for frames without one.
    vlan: Cow<'static, str>,
    counters: Counters,
    endpoints: u64,
}

impl Scrape {
    fn new(published: Arc<Report>, totals: Totals, trust: Trust) -> Self {
        let with_device = published.parents.keys();
        let mut vlans: BTreeMap<Vlan, (Counters, u64)> = with_device
            .map(|&vid| (Vlan::id(vid), Default::default()))
            .collect();
        let with_traffic = totals
            .vlans
            .into_iter()
            .filter(|(_, counters)| *counters != Counters::default());
        for (vlan, counters) in with_traffic {
            vlans.entry(vlan).or_default().0 = counters;
        }
        for key in published.endpoints.keys() {
            vlans.entry(Vlan::id(key.vid())).or_default().1 += 1;
        }
        let row = |(vlan, (counters, endpoints)): (Vlan, _)| VlanRow {
            vlan: match vlan.vid() {
                Some(vid) => vid.to_string().into(),
                None => vlan.tag().into(),
            },
            counters,
            endpoints,
        };
        let vlans = vlans.into_iter().map(row).collect();
        Self {
            published,
            vlans,
            pairs: totals.pairs,
            trust,
        }
    }

    fn traffic(&self, out: &mut Output) -> fmt::Result {
        let trunk = self.published.trunk.as_str();
        for direction in Direction::ALL {
            let (name, way) = match direction {
                Direction::Rx => ("rx", "came in from the wire"),
                Direction::Tx => ("tx", "left for the wire"),
            };
            let packets = self.vlans.iter().flat_map(|row| {
                let tally = row.counters.tally(direction);
                tally.by_cast().map(|(cast, packets)| {
                    let labels = [("trunk", trunk), ("vlan", &row.vlan), ("cast", cast)];
                    (labels, packets)
                })
            });
            let help = format!("Packets that {way}, by the cast of their destination");
            out.counter(&format!("{name}_packets"), &help, packets)?;
            let bytes = self.vlans.iter().map(|row| {
                let labels = [("trunk", trunk), ("vlan", &*row.vlan)];
                (labels, row.counters.tally(direction).bytes)
            });
            let help = format!("Bytes that {way}, from the destination MAC on, without the FCS");
            out.counter(&format!("{name}_bytes"), &help, bytes)?;
        }
        Ok(())
    }

    fn decisions(&self, out: &mut Output) -> fmt::Result {
        let trunk = self.published.trunk.as_str();
        let verdicts = self.vlans.iter().flat_map(|row| {
            let rx = row
                .counters
                .rx_verdicts()
                .map(|named| (Direction::Rx, named));
            let tx = row
                .counters
                .tx_verdicts()
                .map(|named| (Direction::Tx, named));
            rx.into_iter()
                .chain(tx)
                .map(move |(direction, (verdict, packets))| {
                    let labels = [
                        ("trunk", trunk),
                        ("vlan", &*row.vlan),
                        ("direction", direction.name()),
                        ("verdict", verdict),
                    ];
                    (labels, packets)
                })
        });
        out.counter("verdicts", "Packets by verdict", verdicts)?;
        let drops = self.vlans.iter().flat_map(|row| {
            row.counters.drops().map(|(reason, packets)| {
                let labels = [("trunk", trunk), ("vlan", &row.vlan), ("reason", reason)];
                (labels, packets)
            })
        });
        out.counter("drops", "Packets that vlanfast dropped", drops)?;
        let disputed = self.vlans.iter().map(|row| {
            let labels = [("trunk", trunk), ("vlan", &*row.vlan)];
            (labels, row.counters.disputed)
        });
        let help =
            "Packets for an address that two endpoints on the VLAN claim, passed to everyone";
        out.counter("disputed", help, disputed)
    }

    fn flows(&self, out: &mut Output) -> fmt::Result {
        let trunk = self.published.trunk.as_str();
        type Number = fn(&VlanPairCounters) -> &AtomicU64;
        let metrics: [(_, _, Number); 6] = [
            (
                "candidates",
                "Probes for flows that the router had not forwarded yet",
                |pair| &pair.candidates,
            ),
            ("enabled", "Flows that the router has forwarded", |pair| {
                &pair.enabled
            }),
            (
                "packets",
                "Packets of learnt flows that took the shortcut",
                |pair| &pair.packets,
            ),
            (
                "bytes",
                "Bytes of learnt flows that took the shortcut",
                |pair| &pair.bytes,
            ),
            (
                "refreshes",
                "Probes for flows that take the shortcut",
                |pair| &pair.refreshes,
            ),
            (
                "failures",
                "Probes for flows that take the shortcut that the router did not forward",
                |pair| &pair.failures,
            ),
        ];
        for (name, help, number) in metrics {
            let series = self.pairs.iter().map(|(key, pair)| {
                let labels = [
                    ("trunk", trunk.to_owned()),
                    ("from", key.from.to_string()),
                    ("to", key.to.to_string()),
                ];
                (labels, number(pair).load(Relaxed))
            });
            out.counter(&format!("shortcut_{name}"), help, series)?;
        }
        Ok(())
    }

    fn endpoints(&self, out: &mut Output) -> fmt::Result {
        let trunk = self.published.trunk.as_str();
        let counts = self.vlans.iter().map(|row| {
            let labels = [("trunk", trunk), ("vlan", &*row.vlan)];
            (labels, row.endpoints)
        });
        let help = "Macvlans and macvtaps on the VLAN whose entries are in the map";
        out.gauge("endpoints", help, counts)?;
        let infos = self.published.endpoints.iter().map(|(key, names)| {
            let name = |name: &Option<String>| name.clone().unwrap_or_default();
            let labels = [
                ("trunk", trunk.to_owned()),
                ("vlan", key.vid().to_string()),
                ("mac", key.mac().to_string()),
                ("network", name(&names.network)),
                ("container", name(&names.container)),
            ];
            (labels, 1)
        });
        let help = "The names of an endpoint, empty where Docker knows none";
        out.gauge("endpoint_info", help, infos)
    }

    fn maps(&self, out: &mut Output) -> fmt::Result {
        let Report { trunk, maps, .. } = &*self.published;
        let mut gauge = |name, help, number: fn(&_) -> u32| {
            let series = maps.iter().map(|fill| {
                let labels = [("trunk", trunk.as_str()), ("map", fill.map)];
                (labels, number(fill).into())
            });
            out.gauge(name, help, series)
        };
        gauge("map_entries", "Entries in the map", |fill| fill.entries)?;
        gauge(
            "map_capacity",
            "Entries that the map has room for",
            |fill| fill.capacity,
        )?;
        let help = "Entries that found no room in the map: their frames take the kernel's own path";
        gauge("map_left_out", help, |fill| fill.left_out)?;
        let series = self.published.left_out.iter().flat_map(|excess| {
            let counts = [
                ("endpoints", excess.over.endpoints),
                ("addresses", excess.over.addresses),
            ];
            let some = counts.into_iter().filter(|(_, number)| *number > 0);
            some.map(|(what, number)| {
                let labels = [
                    ("trunk", trunk.clone()),
                    ("nsid", excess.nsid.to_string()),
                    ("container", excess.container.clone().unwrap_or_default()),
                    ("what", what.to_owned()),
                ];
                (labels, number.into())
            })
        });
        let help =
            "Endpoints or addresses that are left out because one container exceeds its quota";
        out.gauge("left_out", help, series)
    }
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let mut out = Output(encoder);
        self.traffic(&mut out)?;
        self.decisions(&mut out)?;
        self.flows(&mut out)?;
        self.endpoints(&mut out)?;
        self.maps(&mut out)?;
        self.sources(&mut out)?;
        self.hooks(&mut out)?;
        self.trust(&mut out)?;
        self.settings(&mut out)
    }
}

/// Writes metrics with all their series.
struct Output<'a>(DescriptorEncoder<'a>);

impl Output<'_> {
    fn counter<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        self.write(name, help, MetricType::Counter, series, ConstCounter::new)
    }

    fn gauge<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        self.write(name, help, MetricType::Gauge, series, ConstGauge::new)
    }

    fn write<L: EncodeLabelSet, M: EncodeMetric>(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        series: impl IntoIterator<Item = (L, u64)>,
        metric: fn(u64) -> M,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, kind)?;
        for (labels, number) in series {
            metric(number).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;

//! What a machine must look like after as before: everything of vlanfast's, and the trunk's qdiscs.

use std::{
    collections::BTreeSet,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use aya::{maps::loaded_maps, programs::loaded_programs};

use crate::{program::is_pinned, topology::Netns};

/// A description of everything that vlanfast could have left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Residue(BTreeSet<String>);

const MAPS: [&str; 11] = [
    "COUNTERS",
    "SETTINGS",
    "STATUS",
    "VLANS",
    "ENDPOINTS",
    "NEIGHBORS",
    "ROUTES",
    "BUCKETS",
    "DEVICES",
    "WAYS",
    "AYA_LOGS",
];

impl Residue {
    /// Takes it down: programs, maps, links by their programs, pins, qdiscs, filters and XDP.
    pub fn of(host: &Netns, trunk: &str) -> Result<Self> {
        let mut found = BTreeSet::new();
        for program in loaded_programs().flatten() {
            if let Some(name) = program
                .name_as_str()
                .filter(|name| name.starts_with("vlanfast"))
            {
                found.insert(format!("program {name} {}", program.id()));
            }
        }
        for map in loaded_maps().flatten() {
            if let Some(name) = map.name_as_str().filter(|name| MAPS.contains(name)) {
                found.insert(format!("map {name} {}", map.id()));
            }
        }
        if is_pinned(trunk) {
            found.insert(format!("pins of {trunk}"));
        }
        for line in [
            format!("tc qdisc show dev {trunk}"),
            format!("tc filter show dev {trunk} ingress 2>&1 || true"),
            format!("tc filter show dev {trunk} egress 2>&1 || true"),
            format!("ip -d link show {trunk} | grep -o 'xdp.*' || true"),
            format!("ethtool -k {trunk}"),
        ] {
            found.insert(host.run(&line)?);
        }
        Ok(Self(found))
    }

    /// Waits until nothing is left and nothing lacks: the kernel frees programs and maps after a while.
    pub fn wait_until_as_before(&self, host: &Netns, trunk: &str) -> Result<()> {
        let start = Instant::now();
        loop {
            let now = Self::of(host, trunk)?;
            let more: Vec<_> = now.0.difference(&self.0).collect();
            // Programs and maps of a test before this one may still have been there.
            let is_kept =
                |what: &&String| !what.starts_with("map ") && !what.starts_with("program ");
            let less: Vec<_> = self.0.difference(&now.0).filter(is_kept).collect();
            if more.is_empty() && less.is_empty() {
                return Ok(());
            }
            if start.elapsed() > Duration::from_secs(10) {
                bail!("left behind: {more:?}; gone: {less:?}");
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

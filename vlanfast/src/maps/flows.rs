//! What the programs have learnt of the router: the maps `FLOWS` and `PAIRS`, which they keep themselves.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;
use aya::{
    Pod,
    maps::{HashMap, MapData, MapError},
};
use vlanfast_common::{Flow, FlowKey, NeighborKey, VlanPair, VlanPairCounters};

use crate::{
    maps::entries::{remove, typed},
    pins::{FLOWS, PAIRS, Pins},
};

/// A map of numbers that the programs write one by one, read as such.
type Words<K, const N: usize> = HashMap<MapData, K, [u64; N]>;

/// The flows.
pub struct FlowMap(Words<FlowKey, 12>);

impl FlowMap {
    /// The pinned one, while another process is attached or nobody is.
    pub fn open(pins: &Pins) -> anyhow::Result<Self> {
        open(pins, FLOWS).map(Self)
    }

    pub const fn of(map: Words<FlowKey, 12>) -> Self {
        Self(map)
    }

    pub fn read_all(&self) -> anyhow::Result<BTreeMap<FlowKey, Flow>> {
        read(&self.0, FLOWS)
    }

    /// Forgets those from or to one of these addresses.
    pub fn forget(&mut self, addresses: &[NeighborKey]) -> anyhow::Result<()> {
        let addresses: BTreeSet<_> = addresses.iter().map(NeighborKey::address).collect();
        if addresses.is_empty() {
            return Ok(());
        }
        self.forget_where(|key| {
            addresses.contains(&key.source()) || addresses.contains(&key.destination())
        })
        .map(drop)
    }

    /// Forgets all; how many there were.
    pub fn flush(&mut self) -> anyhow::Result<usize> {
        self.forget_where(|_| true)
    }

    fn forget_where(&mut self, is_one: impl Fn(&FlowKey) -> bool) -> anyhow::Result<usize> {
        // Where the programs remove one meanwhile, the walk begins anew.
        let keys: Result<BTreeSet<_>, _> = self.0.keys().collect();
        let keys = keys.with_context(|| format!("failed to read {FLOWS}"))?;
        let keys: Vec<_> = keys.into_iter().filter(is_one).collect();
        remove(&mut self.0, FLOWS, &keys)?;
        Ok(keys.len())
    }
}

/// What became of flows, by their VLANs.
pub struct PairMap(Words<VlanPair, 6>);

impl PairMap {
    /// The pinned one.
    pub fn open(pins: &Pins) -> anyhow::Result<Self> {
        open(pins, PAIRS).map(Self)
    }

    /// Those that were seen, in their order.
    pub fn read_all(&self) -> anyhow::Result<BTreeMap<VlanPair, VlanPairCounters>> {
        read(&self.0, PAIRS)
    }
}

fn open<K: Pod, const N: usize>(pins: &Pins, name: &str) -> anyhow::Result<Words<K, N>> {
    typed(|name| Ok(MapData::from_pin(pins.path(name))?), name)
}

/// Entries may come and go meanwhile.
fn read<K: Pod + Ord, const N: usize, T: From<[u64; N]>>(
    map: &Words<K, N>,
    name: &str,
) -> anyhow::Result<BTreeMap<K, T>> {
    let mut entries = BTreeMap::new();
    for key in map.keys() {
        let key = key.with_context(|| format!("failed to read {name}"))?;
        match map.get(&key, 0) {
            Ok(words) => {
                entries.insert(key, words.into());
            }
            Err(MapError::KeyNotFound) => {}
            Err(error) => return Err(error).with_context(|| format!("failed to read {name}")),
        }
    }
    Ok(entries)
}

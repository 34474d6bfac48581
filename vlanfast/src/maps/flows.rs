//! Reads the maps `FLOWS` and `PAIRS`, in which the programs keep what they have learnt from the router's answers.

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

/// A map whose values are words. The programs write each word atomically, so they are read as words, too.
type Words<K, const N: usize> = HashMap<MapData, K, [u64; N]>;

/// The map `FLOWS`.
pub struct FlowMap(Words<FlowKey, 12>);

impl FlowMap {
    /// Opens the pinned map. It can be read while another process is attached.
    pub fn open(pins: &Pins) -> anyhow::Result<Self> {
        open(pins, FLOWS).map(Self)
    }

    /// Uses a map that is open already.
    pub const fn of(map: Words<FlowKey, 12>) -> Self {
        Self(map)
    }

    /// All learnt flows.
    pub fn read_all(&self) -> anyhow::Result<BTreeMap<FlowKey, Flow>> {
        read(&self.0, FLOWS)
    }

    /// Forgets the flows from or to one of these addresses.
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

    /// Forgets all flows. Returns how many there were.
    pub fn flush(&mut self) -> anyhow::Result<usize> {
        self.forget_where(|_| true)
    }

    fn forget_where(&mut self, is_one: impl Fn(&FlowKey) -> bool) -> anyhow::Result<usize> {
        // The keys are collected in a set, because the walk starts again if a program removes an entry meanwhile.
        let keys: Result<BTreeSet<_>, _> = self.0.keys().collect();
        let keys = keys.with_context(|| format!("failed to read {FLOWS}"))?;
        let keys: Vec<_> = keys.into_iter().filter(is_one).collect();
        remove(&mut self.0, FLOWS, &keys)?;
        Ok(keys.len())
    }
}

/// The map `PAIRS`: counters of flows by their two VLANs.
pub struct PairMap(Words<VlanPair, 6>);

impl PairMap {
    /// Opens the pinned map.
    pub fn open(pins: &Pins) -> anyhow::Result<Self> {
        open(pins, PAIRS).map(Self)
    }

    /// The counters of every pair of VLANs that had flows.
    pub fn read_all(&self) -> anyhow::Result<BTreeMap<VlanPair, VlanPairCounters>> {
        read(&self.0, PAIRS)
    }
}

fn open<K: Pod, const N: usize>(pins: &Pins, name: &str) -> anyhow::Result<Words<K, N>> {
    typed(|name| Ok(MapData::from_pin(pins.path(name))?), name)
}

/// All entries of a map. Entries may appear and vanish while it is read.
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

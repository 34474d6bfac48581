//! What the programs have learnt of the router: the maps `FLOWS` and `PAIRS`, which they keep themselves.

use std::collections::BTreeSet;

use anyhow::Context;
use aya::{
    Pod,
    maps::{HashMap, MapData, MapError},
};
use vlanfast_common::{Flow, FlowKey, NeighborKey, Pair, PairKey};

use super::{
    pins::{FLOWS, PAIRS, Pins},
    tables::{remove, typed},
};

/// A map of numbers that the programs write one by one, read as such.
type Words<K, const N: usize> = HashMap<MapData, K, [u64; N]>;

/// The flows.
pub struct FlowMap(Words<FlowKey, 11>);

impl FlowMap {
    /// The pinned one, while another process is attached or nobody is.
    pub fn open(pins: &Pins) -> anyhow::Result<Self> {
        open(pins, FLOWS).map(Self)
    }

    pub const fn of(map: Words<FlowKey, 11>) -> Self {
        Self(map)
    }

    pub fn read_all(&self) -> anyhow::Result<Vec<(FlowKey, Flow)>> {
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
        let mut keys = vec![];
        for (key, _) in self.read_all()? {
            keys.extend(is_one(&key).then_some(key));
        }
        remove(&mut self.0, FLOWS, &keys)?;
        Ok(keys.len())
    }
}

/// What became of flows, by their VLANs.
pub struct PairMap(Words<PairKey, 6>);

impl PairMap {
    /// The pinned one.
    pub fn open(pins: &Pins) -> anyhow::Result<Self> {
        open(pins, PAIRS).map(Self)
    }

    /// Those that were seen, in their order.
    pub fn read_all(&self) -> anyhow::Result<Vec<(PairKey, Pair)>> {
        let mut pairs = read(&self.0, PAIRS)?;
        pairs.sort_by_key(|(key, _)| *key);
        Ok(pairs)
    }
}

fn open<K: Pod, const N: usize>(pins: &Pins, name: &str) -> anyhow::Result<Words<K, N>> {
    typed(|name| Ok(MapData::from_pin(pins.path(name))?), name)
}

/// Entries may come and go meanwhile.
fn read<K: Pod, const N: usize, T: From<[u64; N]>>(
    map: &Words<K, N>,
    name: &str,
) -> anyhow::Result<Vec<(K, T)>> {
    let mut entries = vec![];
    for key in map.keys() {
        let key = key.with_context(|| format!("failed to read {name}"))?;
        match map.get(&key, 0) {
            Ok(words) => entries.push((key, words.into())),
            Err(MapError::KeyNotFound) => {}
            Err(error) => return Err(error).with_context(|| format!("failed to read {name}")),
        }
    }
    Ok(entries)
}

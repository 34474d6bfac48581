//! Reads the per-CPU map `COUNTERS`.

use anyhow::Context;
use aya::maps::{Map, MapData, PerCpuArray};
use vlanfast_common::{Counters, Vlan};

use crate::pins::{COUNTERS, Pins};

/// The pinned map `COUNTERS`. It can be read while another process is attached.
pub struct CounterMap(PerCpuArray<MapData, Counters>);

impl CounterMap {
    /// Opens the pinned map.
    pub fn open(pins: &Pins) -> anyhow::Result<Self> {
        let what = || format!("failed to open the counters of {}", pins.trunk);
        let map = MapData::from_pin(pins.path(COUNTERS)).with_context(what)?;
        let map = PerCpuArray::try_from(Map::PerCpuArray(map)).with_context(what)?;
        Ok(Self(map))
    }

    /// The counters of every VLAN, in the order of the keys.
    pub fn read_all(&self) -> anyhow::Result<Vec<(Vlan, Counters)>> {
        Vlan::all()
            .map(|vlan| Ok((vlan, self.read(vlan)?)))
            .collect()
    }

    /// The counters of a VLAN, summed over all CPUs.
    pub fn read(&self, vlan: Vlan) -> anyhow::Result<Counters> {
        let parts = self
            .0
            .get(&vlan.key(), 0)
            .context("failed to read COUNTERS")?;
        let mut sum = Counters::default();
        for part in parts.iter() {
            sum.merge(part);
        }
        Ok(sum)
    }
}

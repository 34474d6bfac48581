//! The maps that tell the programs which endpoints there are: `VLANS`, `ENDPOINTS`, `NEIGHBORS`, `ROUTES`, and what
//! belongs to them. Only the attached process writes them; every process may read them.

use std::{collections::BTreeMap, os::fd::AsFd, thread, time::Duration};

use anyhow::{Context, anyhow};
use aya::{
    Ebpf,
    maps::{Array, HashMap, Map, MapData},
};
use nix::time::{ClockId, clock_gettime};
use vlanfast_common::{
    Claim, Endpoint, EndpointKey, Neighbor, NeighborKey, Parent, Route, Settings, Status, Vid,
};

use crate::{
    maps::{
        entries,
        entries::{put, remove, typed},
        flows::FlowMap,
    },
    pins::{CLAIMS, ENDPOINTS, FLOWS, NEIGHBORS, Pins, ROUTES, SETTINGS, STATUS, VLANS},
    state::{
        plan::{Capacity, Plan},
        report::MapFill,
        tables::DesiredTables,
    },
    stop,
};

/// Handles on these maps.
pub struct TableMaps {
    vlans: Array<MapData, Parent>,
    endpoints: HashMap<MapData, EndpointKey, Endpoint>,
    neighbors: HashMap<MapData, NeighborKey, Neighbor>,
    routes: HashMap<MapData, NeighborKey, Route>,
    claims: HashMap<MapData, NeighborKey, Claim>,
    flows: FlowMap,
    settings: Array<MapData, Settings>,
    status: Array<MapData, Status>,
    /// An entry was removed, and a program that is running may still read it.
    has_removed: bool,
}

/// Longer than any program runs, because a running program is not preempted.
const LONGER_THAN_A_PROGRAM: Duration = Duration::from_millis(50);

impl TableMaps {
    /// The maps of an object that was just loaded.
    pub fn of(ebpf: &Ebpf) -> anyhow::Result<Self> {
        Self::with(|name| {
            let map = match ebpf.map(name) {
                Some(Map::Array(map) | Map::HashMap(map) | Map::LruHashMap(map)) => map,
                _ => return Err(anyhow!("the BPF object has no map {name}")),
            };
            Ok(MapData::from_fd(map.fd().as_fd().try_clone_to_owned()?)?)
        })
    }

    /// Opens the pinned maps. Another process may be attached.
    pub fn open(pins: &Pins) -> anyhow::Result<Self> {
        let trunk = &pins.trunk;
        Self::with(|name| Ok(MapData::from_pin(pins.path(name))?)).with_context(|| {
            format!(
                "failed to read the tables of {trunk}; if another version of vlanfast is attached to it, use that version, \
                 or run `vlanfast attach {trunk}` with this one"
            )
        })
    }

    fn with(open: impl Fn(&str) -> anyhow::Result<MapData>) -> anyhow::Result<Self> {
        Ok(Self {
            vlans: typed(&open, VLANS)?,
            endpoints: typed(&open, ENDPOINTS)?,
            neighbors: typed(&open, NEIGHBORS)?,
            routes: typed(&open, ROUTES)?,
            claims: typed(&open, CLAIMS)?,
            flows: FlowMap::of(typed(&open, FLOWS)?),
            settings: typed(&open, SETTINGS)?,
            status: typed(&open, STATUS)?,
            has_removed: false,
        })
    }

    /// Carries out a plan. Removals come first, to make room. An address is removed before its endpoint, so that it
    /// never leads to an endpoint that does not exist.
    pub fn apply(&mut self, plan: &Plan) -> anyhow::Result<()> {
        let written = self.write(plan);
        // This is done even if a part of the plan failed.
        let renewed = match plan.is_empty() {
            true => Ok(()),
            false => self.renew(),
        };
        // Learnt flows of a removed address are forgotten, because the address may come back with another owner. This
        // is not urgent, so it comes last.
        written.and(renewed)?;
        self.flows.forget(&plan.routes.remove)
    }

    fn write(&mut self, plan: &Plan) -> anyhow::Result<()> {
        self.has_removed |= plan.removes();
        remove(&mut self.routes, ROUTES, &plan.routes.remove)?;
        remove(&mut self.neighbors, NEIGHBORS, &plan.neighbors.remove)?;
        remove(&mut self.endpoints, ENDPOINTS, &plan.endpoints.remove)?;
        for &vid in &plan.vlans.remove {
            // An array always has all entries; one that is all zero stands for no entry.
            self.set_parent(vid, Parent::default())?;
        }
        for &(vid, parent) in &plan.vlans.put {
            self.set_parent(vid, parent)?;
        }
        // The kernel reuses the memory of a removed entry at once (`pcpu_freelist_pop`), and a running program could
        // read the new entry in place of the old one.
        if plan.puts() && std::mem::take(&mut self.has_removed) {
            wait_for_running_programs();
        }
        put(&mut self.endpoints, ENDPOINTS, &plan.endpoints.put)?;
        put(&mut self.neighbors, NEIGHBORS, &plan.neighbors.put)?;
        put(&mut self.routes, ROUTES, &plan.routes.put)
    }

    fn set_parent(&mut self, vid: Vid, parent: Parent) -> anyhow::Result<()> {
        self.vlans
            .set(vid.get().into(), parent, 0)
            .with_context(|| format!("failed to write {VLANS}"))
    }

    /// Reads all tables.
    pub fn read(&self) -> anyhow::Result<DesiredTables> {
        Ok(DesiredTables {
            vlans: self.parents()?.collect(),
            endpoints: entries::read(&self.endpoints, ENDPOINTS)?,
            neighbors: entries::read(&self.neighbors, NEIGHBORS)?,
            routes: entries::read(&self.routes, ROUTES)?,
        })
    }

    fn parents(&self) -> anyhow::Result<impl Iterator<Item = (Vid, Parent)>> {
        let parents: Vec<_> = self
            .vlans
            .iter()
            .collect::<Result<_, _>>()
            .with_context(|| format!("failed to read {VLANS}"))?;
        let vids = (0..).map(Vid::new);
        Ok(vids
            .zip(parents)
            .filter(|(_, parent)| *parent != Parent::default()))
    }

    /// The claims of hosts on the wire to addresses of our endpoints.
    pub fn claims(&self) -> anyhow::Result<BTreeMap<NeighborKey, Claim>> {
        entries::read(&self.claims, CLAIMS)
    }

    /// Writes a claim.
    pub fn set_claim(&mut self, key: NeighborKey, claim: Claim) -> anyhow::Result<()> {
        put(&mut self.claims, CLAIMS, &[(key, claim)])
    }

    /// Removes claims.
    pub fn forget_claims(&mut self, keys: &[NeighborKey]) -> anyhow::Result<()> {
        remove(&mut self.claims, CLAIMS, keys)
    }

    /// The number of entries that the hash maps have room for.
    pub fn capacity(&self) -> anyhow::Result<Capacity> {
        Ok(Capacity {
            endpoints: entries::capacity(&self.endpoints, ENDPOINTS)?,
            neighbors: entries::capacity(&self.neighbors, NEIGHBORS)?,
            routes: entries::capacity(&self.routes, ROUTES)?,
        })
    }

    /// How full each table is, given its entries. `ROUTES` is in use only with `--shortcut`.
    pub fn fills(&self, tables: &DesiredTables, uses_routes: bool) -> anyhow::Result<Vec<MapFill>> {
        let capacity = self.capacity()?;
        let status = self.status()?;
        let fill = |map, entries: usize, capacity, left_out| MapFill {
            map,
            entries: entries as u32,
            capacity,
            left_out,
        };
        let mut fills = vec![
            fill(VLANS, tables.vlans.len(), Parent::COUNT, 0),
            fill(
                ENDPOINTS,
                tables.endpoints.len(),
                capacity.endpoints,
                status.endpoints_left_out,
            ),
            fill(
                NEIGHBORS,
                tables.neighbors.len(),
                capacity.neighbors,
                status.neighbors_left_out,
            ),
        ];
        if uses_routes {
            let (entries, left_out) = (tables.routes.len(), status.routes_left_out);
            fills.push(fill(ROUTES, entries, capacity.routes, left_out));
        }
        Ok(fills)
    }

    /// Lets the programs trust the tables for this long from now.
    ///
    /// This may be called only once the programs that read these tables are attached: programs of an earlier process
    /// share `SETTINGS`, and would trust their own old tables.
    pub fn beat(&mut self, validity: Duration) -> anyhow::Result<()> {
        let until = now()? + validity;
        self.set_heartbeat(until.as_nanos() as u64)
    }

    /// Makes the programs drop what they have cached under the current heartbeat. They compare it exactly, so a
    /// nanosecond more is enough.
    fn renew(&mut self) -> anyhow::Result<()> {
        self.update_settings(|settings| {
            if settings.heartbeat != 0 {
                settings.heartbeat += 1;
            }
        })
    }

    /// Withdraws the heartbeat: from now on the programs pass every frame.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        self.set_heartbeat(0)
    }

    fn set_heartbeat(&mut self, heartbeat: u64) -> anyhow::Result<()> {
        self.update_settings(|settings| settings.heartbeat = heartbeat)
    }

    /// Changes fields of `SETTINGS` and leaves the others as they are.
    pub fn update_settings(&mut self, change: impl FnOnce(&mut Settings)) -> anyhow::Result<()> {
        let old = self.settings()?;
        let mut settings = old;
        change(&mut settings);
        match settings == old {
            true => Ok(()),
            false => self.set_settings(&settings),
        }
    }

    pub fn settings(&self) -> anyhow::Result<Settings> {
        self.settings
            .get(&0, 0)
            .with_context(|| format!("failed to read {SETTINGS}"))
    }

    pub fn set_settings(&mut self, settings: &Settings) -> anyhow::Result<()> {
        self.settings
            .set(0, settings, 0)
            .with_context(|| format!("failed to write {SETTINGS}"))
    }

    pub fn status(&self) -> anyhow::Result<Status> {
        self.status
            .get(&0, 0)
            .with_context(|| format!("failed to read {STATUS}"))
    }

    pub fn set_status(&mut self, status: &Status) -> anyhow::Result<()> {
        self.status
            .set(0, status, 0)
            .with_context(|| format!("failed to write {STATUS}"))
    }
}

/// Waits until every program that is running now has ended, so that none still reads an entry that was removed.
fn wait_for_running_programs() {
    // `MEMBARRIER_CMD_GLOBAL` calls `synchronize_rcu` (Linux 4.3, commit 5b25b13ab08f).
    const GLOBAL: libc::c_int = 1;
    // SAFETY: the call takes numbers only and touches none of our memory.
    let waited = stop::in_kernel(|| unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, 0, 0) });
    // Kernels with `nohz_full`, and those built without membarrier(2), refuse the command.
    if waited != 0 {
        thread::sleep(LONGER_THAN_A_PROGRAM);
    }
}

/// Reads the pinned `SETTINGS`. Its first fields have the same place in every version.
pub fn settings(pins: &Pins) -> anyhow::Result<Settings> {
    let settings: Array<_, Settings> =
        typed(|name| Ok(MapData::from_pin(pins.path(name))?), SETTINGS)?;
    settings
        .get(&0, 0)
        .with_context(|| format!("failed to read {SETTINGS}"))
}

/// Whether an attached process keeps the tables up to date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heartbeat {
    Alive,
    /// The process was killed or hangs. The programs pass every frame.
    Expired,
    /// The process has ended regularly, or is still starting. The programs pass every frame.
    Stopped,
}

impl Heartbeat {
    /// Compares the deadline in `SETTINGS` with the time from [`now`].
    pub fn of(settings: &Settings, now: Duration) -> Self {
        match u128::from(settings.heartbeat) {
            0 => Self::Stopped,
            until if until > now.as_nanos() => Self::Alive,
            _ => Self::Expired,
        }
    }

    /// The word in `status` and in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Expired => "expired",
            Self::Stopped => "stopped",
        }
    }
}

/// The time of CLOCK_MONOTONIC, which `bpf_ktime_get_ns` reads as well.
pub fn now() -> anyhow::Result<Duration> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).context("failed to read the clock")?;
    Ok(now.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heartbeat_is_valid_until_its_deadline() {
        let at = |heartbeat, now| {
            let settings = Settings {
                heartbeat,
                ..Settings::default()
            };
            Heartbeat::of(&settings, Duration::from_nanos(now))
        };
        assert_eq!(at(3_000, 2_999), Heartbeat::Alive);
        assert_eq!(at(3_000, 3_000), Heartbeat::Expired);
        assert_eq!(at(3_000, u64::MAX), Heartbeat::Expired);
        assert_eq!(at(u64::MAX, 3_000), Heartbeat::Alive);
    }

    #[test]
    fn no_heartbeat_means_that_the_process_ended_regularly() {
        assert_eq!(
            Heartbeat::of(&Settings::default(), Duration::ZERO),
            Heartbeat::Stopped
        );
    }

    #[test]
    fn the_clock_goes_forward() {
        let before = now().unwrap();
        assert!(now().unwrap() >= before && before > Duration::ZERO);
    }
}

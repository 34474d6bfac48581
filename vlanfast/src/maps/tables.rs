//! The maps that tell the datapath who is behind the trunk. One process writes them, the one that is
//! attached; everybody may read them.

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

/// Handles of our own on all maps but `COUNTERS`.
pub struct Maps {
    vlans: Array<MapData, Parent>,
    endpoints: HashMap<MapData, EndpointKey, Endpoint>,
    neighbors: HashMap<MapData, NeighborKey, Neighbor>,
    routes: HashMap<MapData, NeighborKey, Route>,
    claims: HashMap<MapData, NeighborKey, Claim>,
    flows: FlowMap,
    settings: Array<MapData, Settings>,
    status: Array<MapData, Status>,
    /// Something was removed, and a program may still look at it.
    is_watched: bool,
}

/// Longer than a program runs: no process takes the CPU from one.
const LONGER_THAN_A_PROGRAM: Duration = Duration::from_millis(50);

impl Maps {
    /// The maps of an object that was just loaded, pinned or not.
    pub fn of(ebpf: &Ebpf) -> anyhow::Result<Self> {
        Self::with(|name| {
            let map = match ebpf.map(name) {
                Some(Map::Array(map) | Map::HashMap(map) | Map::LruHashMap(map)) => map,
                _ => return Err(anyhow!("the BPF object has no map {name}")),
            };
            Ok(MapData::from_fd(map.fd().as_fd().try_clone_to_owned()?)?)
        })
    }

    /// The maps that are pinned, while another process is attached or nobody is.
    pub fn open(pins: &Pins) -> anyhow::Result<Self> {
        let trunk = &pins.trunk;
        Self::with(|name| Ok(MapData::from_pin(pins.path(name))?)).with_context(|| {
            format!(
                "failed to read the tables of {trunk}; if another version of vlanfast is attached \
                 to it, ask that one, or run `vlanfast attach {trunk}` with this one"
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
            is_watched: false,
        })
    }

    /// Carries out a plan. Removals first, so that there is room for what comes, and a key before
    /// what it leads to: an address never leads to an endpoint that is gone.
    pub fn apply(&mut self, plan: &Plan) -> anyhow::Result<()> {
        let written = self.write(plan);
        // Also where some of it failed.
        let renewed = match plan.is_empty() {
            true => Ok(()),
            false => self.renew(),
        };
        // Should an address come back, nobody knows whose it is. Last, because nothing waits for it.
        written.and(renewed)?;
        self.flows.forget(&plan.routes.remove)
    }

    fn write(&mut self, plan: &Plan) -> anyhow::Result<()> {
        self.is_watched |= plan.removes();
        remove(&mut self.routes, ROUTES, &plan.routes.remove)?;
        remove(&mut self.neighbors, NEIGHBORS, &plan.neighbors.remove)?;
        remove(&mut self.endpoints, ENDPOINTS, &plan.endpoints.remove)?;
        for &vid in &plan.vlans.remove {
            // An array has no holes: one that is all zero stands for none.
            self.set_parent(vid, Parent::default())?;
        }
        for &(vid, parent) in &plan.vlans.put {
            self.set_parent(vid, parent)?;
        }
        // The kernel puts what comes where what was removed has been (`pcpu_freelist_pop`), at once.
        if plan.puts() && std::mem::take(&mut self.is_watched) {
            let_programs_end();
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

    /// What the kernel holds now.
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

    /// Who on the wire has said that he has an address of ours.
    pub fn claims(&self) -> anyhow::Result<BTreeMap<NeighborKey, Claim>> {
        entries::read(&self.claims, CLAIMS)
    }

    pub fn set_claim(&mut self, key: NeighborKey, claim: Claim) -> anyhow::Result<()> {
        put(&mut self.claims, CLAIMS, &[(key, claim)])
    }

    pub fn forget_claims(&mut self, keys: &[NeighborKey]) -> anyhow::Result<()> {
        remove(&mut self.claims, CLAIMS, keys)
    }

    /// How many entries the hashes were made for.
    pub fn capacity(&self) -> anyhow::Result<Capacity> {
        Ok(Capacity {
            endpoints: entries::capacity(&self.endpoints, ENDPOINTS)?,
            neighbors: entries::capacity(&self.neighbors, NEIGHBORS)?,
            routes: entries::capacity(&self.routes, ROUTES)?,
        })
    }

    /// How full each table is that holds this.
    pub fn fills(&self, tables: &DesiredTables) -> anyhow::Result<[MapFill; 4]> {
        let capacity = self.capacity()?;
        let status = self.status()?;
        let fill = |map, entries: usize, capacity, left_out| MapFill {
            map,
            entries: entries as u32,
            capacity,
            left_out,
        };
        Ok([
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
            fill(
                ROUTES,
                tables.routes.len(),
                capacity.routes,
                status.routes_left_out,
            ),
        ])
    }

    /// Says that the tables are true, and will be for this long without another word.
    ///
    /// Only once the programs that read these tables are attached: those of a process that was there
    /// before share `SETTINGS`, and would believe their own old tables.
    pub fn beat(&mut self, validity: Duration) -> anyhow::Result<()> {
        let until = now()? + validity;
        self.set_heartbeat(until.as_nanos() as u64)
    }

    /// Has the programs look anew for what they remember under this heartbeat: to them, another nanosecond is another.
    fn renew(&mut self) -> anyhow::Result<()> {
        self.note(|settings| {
            if settings.heartbeat != 0 {
                settings.heartbeat += 1;
            }
        })
    }

    /// Says that nobody keeps the tables true any more: from now on every frame is passed.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        self.set_heartbeat(0)
    }

    fn set_heartbeat(&mut self, heartbeat: u64) -> anyhow::Result<()> {
        self.note(|settings| settings.heartbeat = heartbeat)
    }

    /// Changes what is noted, and leaves the rest of it as it is.
    pub fn note(&mut self, change: impl FnOnce(&mut Settings)) -> anyhow::Result<()> {
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

/// Waits until every program that runs by now has ended, so that none has an entry in its hands that was removed.
fn let_programs_end() {
    // `MEMBARRIER_CMD_GLOBAL` is `synchronize_rcu` (Linux 4.3, commit 5b25b13ab08f).
    const GLOBAL: libc::c_int = 1;
    // SAFETY: takes numbers alone, and touches no memory of ours.
    let waited = stop::in_kernel(|| unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, 0, 0) });
    // A kernel with `nohz_full` refuses it, and so does one that was built without.
    if waited != 0 {
        thread::sleep(LONGER_THAN_A_PROGRAM);
    }
}

/// The loader's note. `SETTINGS` has its first fields in the same place in every version.
pub fn settings(pins: &Pins) -> anyhow::Result<Settings> {
    let settings: Array<_, Settings> =
        typed(|name| Ok(MapData::from_pin(pins.path(name))?), SETTINGS)?;
    settings
        .get(&0, 0)
        .with_context(|| format!("failed to read {SETTINGS}"))
}

/// Whether somebody keeps the tables true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heartbeat {
    Alive,
    /// Whoever did was killed, or hangs: verdicts are `Pass`.
    Expired,
    /// Whoever did has ended in order, or has not begun: verdicts are `Pass`.
    Stopped,
}

impl Heartbeat {
    /// By the clock of the datapath; see [`now`].
    pub fn of(settings: &Settings, now: Duration) -> Self {
        match u128::from(settings.heartbeat) {
            0 => Self::Stopped,
            until if until > now.as_nanos() => Self::Alive,
            _ => Self::Expired,
        }
    }

    /// The word in `status`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Expired => "expired",
            Self::Stopped => "stopped",
        }
    }
}

/// The time by CLOCK_MONOTONIC, which is what `bpf_ktime_get_ns` reads.
pub fn now() -> anyhow::Result<Duration> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).context("failed to read the clock")?;
    Ok(now.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heartbeat_is_good_until_its_deadline() {
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
    fn no_heartbeat_is_an_end_in_order() {
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

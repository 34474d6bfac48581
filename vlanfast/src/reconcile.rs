//! Keeps the maps true: what the sources show → what should be → the difference → the maps, and the
//! result published for metrics. Everything is computed from scratch in each round, so that a lost
//! event costs a moment and never correctness.

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use tokio::{
    sync::watch,
    time::{Instant, interval, sleep, sleep_until},
};
use vlanfast_common::{Parent, Source, SourceState, SourceStatus, Status, Vid};

use crate::{
    datapath::{
        pins::{ENDPOINTS, NEIGHBORS, Pins, VLANS},
        tables::Maps,
    },
    error::Error,
    source::{docker, netlink::Netlink},
    state::{
        desired::{Desired, Tables, desired},
        names::names,
        plan::{Capacity, Plan, plan},
        published::{MapFill, Published},
        snapshot::Ifindex,
    },
};

/// What belongs together comes together: a container's start is a dozen events within milliseconds.
const SETTLE: Duration = Duration::from_millis(5);
/// Reads everything anew however quiet it is, should the kernel ever have kept something from us.
const DOUBT: Duration = Duration::from_secs(60);
/// Before a source that failed is asked anew.
const PAUSE: Duration = Duration::from_secs(1);
/// Between two beats, and how long one is good for: past it, the programs stop trusting the maps.
const BEAT: Duration = Duration::from_secs(1);
pub const VALIDITY: Duration = Duration::from_secs(3);

/// The loop's state.
pub struct Reconciler {
    netlink: Netlink,
    docker: watch::Receiver<docker::State>,
    maps: Maps,
    pins: Pins,
    trunk: Ifindex,
    capacity: Capacity,
    /// What is in the maps.
    installed: Tables,
    netlink_status: SourceStatus,
    hooks: Vec<(&'static str, &'static str)>,
    publish: watch::Sender<Option<Arc<Published>>>,
}

impl Reconciler {
    /// Reads the sources and fills the maps, which must be empty: the programs that use them are to be
    /// attached only then.
    pub async fn fill(
        pins: Pins,
        trunk: Ifindex,
        maps: Maps,
        docker: watch::Receiver<docker::State>,
    ) -> anyhow::Result<Self> {
        let mut reconciler = Self {
            netlink: Netlink::open().await?,
            docker,
            capacity: maps.capacity()?,
            maps,
            pins,
            trunk,
            installed: Tables::default(),
            netlink_status: SourceStatus::default(),
            hooks: vec![],
            publish: watch::Sender::default(),
        };
        reconciler.refresh().await?;
        reconciler.round()?;
        Ok(reconciler)
    }

    /// Those of the trunk, by its name of today.
    pub const fn pins(&self) -> &Pins {
        &self.pins
    }

    /// What each round found, from now on with the hooks that were attached meanwhile.
    pub fn publish(
        &mut self,
        hooks: Vec<(&'static str, &'static str)>,
    ) -> anyhow::Result<watch::Receiver<Option<Arc<Published>>>> {
        self.hooks = hooks;
        self.round()?;
        Ok(self.publish.subscribe())
    }

    /// Follows the sources until the trunk is gone, which is an error like any other.
    pub async fn run(&mut self) -> anyhow::Result<Infallible> {
        let mut doubt = Instant::now() + DOUBT;
        loop {
            tokio::select! {
                heard = self.netlink.changed() => {
                    heard.context("failed to listen to netlink events")?;
                    sleep(SETTLE).await;
                }
                Ok(()) = self.docker.changed() => {}
                () = sleep_until(doubt) => {
                    self.netlink.doubt();
                    doubt = Instant::now() + DOUBT;
                }
            }
            if let Err(error) = self.refresh().await {
                log::warn!("{error:#}; trying again");
                sleep(PAUSE).await;
            }
            self.round()?;
        }
    }

    async fn refresh(&mut self) -> anyhow::Result<()> {
        let result = self.netlink.refresh().await;
        match result {
            Ok(()) => {
                self.netlink_status.state = SourceState::Ok as u32;
                self.netlink_status.last_success = seconds_since_1970();
            }
            Err(_) => self.netlink_status.state = SourceState::Unreachable as u32,
        }
        result
    }

    /// From what the sources show by now to what is in the maps.
    fn round(&mut self) -> anyhow::Result<()> {
        let desired = desired(self.netlink.network(), self.trunk);
        let Some(name) = desired.parents.get(&Vid::UNTAGGED) else {
            return Err(Error::TrunkGone {
                trunk: self.pins.trunk.clone(),
            }
            .into());
        };
        if *name != self.pins.trunk {
            log::warn!("{} is called {name} now", self.pins.trunk);
            self.pins.rename(name)?;
        }
        let plan = plan(&self.installed, &desired.tables, self.capacity);
        let applied = self.maps.apply(&plan);
        match applied {
            Ok(()) => plan.apply_to(&mut self.installed),
            // Some of it was done: the maps themselves say how much.
            Err(_) => self.installed = self.maps.read()?,
        }
        applied?;
        self.report(desired, &plan)
    }

    /// Tells `status` and the metrics.
    fn report(&mut self, desired: Desired, plan: &Plan) -> anyhow::Result<()> {
        let docker = self.docker.borrow_and_update().clone();
        let mut sources = [SourceStatus::default(); Source::ALL.len()];
        sources[Source::Netlink as usize] = self.netlink_status;
        sources[Source::Docker as usize] = docker.status;
        self.maps.set_status(&Status {
            sources,
            endpoints_left_out: plan.endpoints.left_out,
            neighbors_left_out: plan.neighbors.left_out,
            service_parents: desired.service_parents,
            stacked: desired.stacked,
            reserved: [0; 4],
        })?;
        let mut endpoints = names(&desired, &docker.docker);
        endpoints.retain(|key, _| self.installed.endpoints.contains_key(key));
        let fill = |map, entries: usize, capacity, left_out| MapFill {
            map,
            entries: entries as u32,
            capacity,
            left_out,
        };
        let installed = &self.installed;
        let published = Published {
            trunk: self.pins.trunk.clone(),
            parents: desired.parents,
            endpoints,
            maps: vec![
                fill(VLANS, installed.vlans.len(), Parent::COUNT, 0),
                fill(
                    ENDPOINTS,
                    installed.endpoints.len(),
                    self.capacity.endpoints,
                    plan.endpoints.left_out,
                ),
                fill(
                    NEIGHBORS,
                    installed.neighbors.len(),
                    self.capacity.neighbors,
                    plan.neighbors.left_out,
                ),
            ],
            sources,
            hooks: self.hooks.clone(),
        };
        self.publish.send_replace(Some(Arc::new(published)));
        Ok(())
    }
}

/// Moves the heartbeat for as long as the maps are true; past it, the programs pass every frame.
pub async fn heartbeat(
    maps: &mut Maps,
    published: watch::Receiver<Option<Arc<Published>>>,
) -> anyhow::Result<Infallible> {
    let mut tick = interval(BEAT);
    loop {
        tick.tick().await;
        let netlink = published
            .borrow()
            .as_ref()
            .map(|published| published.sources[Source::Netlink as usize]);
        if netlink.is_some_and(|netlink| netlink.state == SourceState::Ok as u32) {
            maps.beat(VALIDITY)?;
        }
    }
}

fn seconds_since_1970() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH);
    elapsed.map_or(0, |elapsed| elapsed.as_secs())
}

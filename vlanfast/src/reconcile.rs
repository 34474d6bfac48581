//! Keeps the maps true: what the sources show → what should be → the difference → the maps, and the
//! result published for metrics. Everything is computed from scratch in each round, so that a lost
//! event costs a moment and never correctness.

use std::{
    cell::Cell, collections::BTreeMap, convert::Infallible, rc::Rc, sync::Arc, time::Duration,
};

use anyhow::Context;
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};
use vlanfast_common::{Parent, Settings, Source, SourceState, SourceStatus, Status, Vid};

use crate::{
    clock,
    datapath::{
        self, ethtool, hooks,
        pins::{ENDPOINTS, NEIGHBORS, Pins, ROUTES, VLANS},
        tables::Maps,
    },
    error::Error,
    source::{docker, netlink::Netlink},
    state::{
        desired::{Desired, Tables, desired},
        listeners::Listener,
        names::names,
        plan::{Capacity, Plan, plan},
        published::{Hook, MapFill, Published},
        snapshot::Ifindex,
        wishes::{Routes, Wishes},
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
    wishes: Wishes,
    capacity: Capacity,
    /// What is in the maps.
    installed: Tables,
    netlink_status: SourceStatus,
    /// There is something to do though the network is as it was: the last round failed, the trunk's name
    /// was not free, or Docker has other names.
    behind: bool,
    hooks: Vec<Hook>,
    /// Where the shortcut begins at the VLANs' own devices.
    parents: Option<hooks::Parents>,
    /// The programs that read these maps are at work.
    attached: bool,
    /// Which tables lack something, as [`Settings::incomplete`] has it.
    incomplete: u32,
    tags_hidden: bool,
    truth: Truth,
    publish: watch::Sender<Option<Arc<Published>>>,
}

/// Since when the maps may be behind what is so; `None` where they are not, as far as is known.
#[derive(Clone, Debug, Default)]
pub struct Truth(Rc<Cell<Option<Instant>>>);

impl Truth {
    fn doubt(&self) {
        self.0.set(self.0.get().or_else(|| Some(Instant::now())));
    }

    fn restore(&self) {
        self.0.set(None);
    }

    fn holds(&self) -> bool {
        self.0.get().is_none_or(|since| since.elapsed() < VALIDITY)
    }
}

impl Reconciler {
    /// Reads the sources and fills the maps, which must be empty: the programs that use them are to be
    /// attached only then.
    pub fn fill(
        pins: Pins,
        trunk: Ifindex,
        wishes: Wishes,
        maps: Maps,
        docker: watch::Receiver<docker::State>,
    ) -> anyhow::Result<Self> {
        let mut reconciler = Self {
            netlink: Netlink::open()?,
            docker,
            capacity: maps.capacity()?,
            maps,
            pins,
            trunk,
            wishes,
            installed: Tables::default(),
            netlink_status: SourceStatus::default(),
            behind: false,
            hooks: vec![],
            parents: None,
            attached: false,
            incomplete: 0,
            tags_hidden: false,
            truth: Truth::default(),
            publish: watch::Sender::default(),
        };
        reconciler.follow()?;
        Ok(reconciler)
    }

    /// Those of the trunk, by its name of today.
    pub const fn pins(&self) -> &Pins {
        &self.pins
    }

    /// What the maps say of the trunk itself.
    pub fn untagged(&self) -> Parent {
        let vlans = &self.installed.vlans;
        vlans.get(&Vid::UNTAGGED).copied().unwrap_or_default()
    }

    /// What each round finds, from now on with the hooks that were attached meanwhile.
    pub async fn publish(
        &mut self,
        kernel: &datapath::netlink::Netlink,
        parents: Option<hooks::Parents>,
    ) -> anyhow::Result<watch::Receiver<Option<Arc<Published>>>> {
        self.hooks = hooks::attached(kernel, &self.pins).await?;
        self.parents = parents;
        self.attached = true;
        // Attaching may have taken seconds.
        self.behind = true;
        self.follow()?;
        Ok(self.publish.subscribe())
    }

    /// Whether the maps are true, for [`heartbeat`].
    pub fn truth(&self) -> Truth {
        self.truth.clone()
    }

    /// Follows the sources until the trunk is gone, which is an error like any other.
    pub async fn run(&mut self, kernel: &datapath::netlink::Netlink) -> anyhow::Result<Infallible> {
        let mut doubt = Instant::now() + DOUBT;
        loop {
            tokio::select! {
                heard = self.netlink.changed() => {
                    heard.context("failed to listen to netlink events")?;
                    self.truth.doubt();
                    // Whoever is new must not lose what comes for it before it is in the tables.
                    let changing = |settings: &mut Settings| settings.incomplete |= Settings::CHANGING;
                    if let Err(error) = self.maps.note(changing) {
                        log::warn!("{error:#}");
                    }
                    sleep(SETTLE).await;
                }
                Ok(()) = self.docker.changed() => self.behind = true,
                () = sleep_until(doubt) => {
                    self.truth.doubt();
                    self.netlink.doubt();
                    // Someone may have taken a program of ours off.
                    self.behind |= self.parents.as_mut().is_some_and(hooks::Parents::doubt);
                    self.hooks = hooks::attached(kernel, &self.pins).await.unwrap_or_default();
                    doubt = Instant::now() + DOUBT;
                }
            }
            match self.follow() {
                Ok(()) if self.hides_tags() => self.truth.doubt(),
                Ok(()) => self.truth.restore(),
                Err(error) if is_gone(&error) => return Err(error),
                Err(error) => {
                    log::warn!("{error:#}; trying again");
                    self.failed();
                    self.netlink.doubt();
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// Whether somebody has turned on what keeps XDP from seeing tags: then tables by VLAN mean nothing.
    fn hides_tags(&mut self) -> bool {
        let trunk = &self.pins.trunk;
        let by_xdp = self.hooks.iter().any(|hook| hook.mode.starts_with("xdp"));
        let hides = by_xdp && ethtool::strips_tags(trunk).unwrap_or(false);
        if hides && !self.tags_hidden {
            log::warn!(
                "{trunk} strips VLAN tags before XDP sees them, since somebody has turned rx-vlan-offload on: \
                 every frame is passed until `ethtool -K {trunk} rxvlan off`"
            );
        }
        self.tags_hidden = hides;
        hides
    }

    /// From what the sources show by now to what is in the maps.
    fn follow(&mut self) -> anyhow::Result<()> {
        let differs = self.netlink.refresh()?;
        self.netlink_status = SourceStatus {
            state: SourceState::Ok as u32,
            last_success: clock::seconds_since_1970(),
            reserved: 0,
        };
        match differs || self.behind {
            true => self.round()?,
            false => self.report_sources()?,
        }
        // The programs of a process that was there before share the note, and have tables of their own.
        match self.attached {
            true => self
                .maps
                .note(|settings| settings.incomplete = self.incomplete),
            false => Ok(()),
        }
    }

    /// Lets everybody know that the maps are not kept up to date for the moment.
    fn failed(&mut self) {
        self.behind = true;
        self.netlink_status.state = SourceState::Unreachable as u32;
        // It may be the maps that failed; the warning has said why.
        let _ = self.report_sources();
    }

    /// Reports how the sources do, where nothing else is new.
    fn report_sources(&mut self) -> anyhow::Result<()> {
        let sources = self.sources();
        self.publish.send_if_modified(|published| {
            let Some(published) = published else {
                return false;
            };
            *published = Arc::new(Published {
                sources,
                hooks: self.hooks.clone(),
                ..Published::clone(published)
            });
            true
        });
        let status = self.maps.status()?;
        self.maps.set_status(&Status { sources, ..status })
    }

    fn sources(&self) -> [SourceStatus; Source::ALL.len()] {
        let mut sources = [SourceStatus::default(); Source::ALL.len()];
        sources[Source::Netlink as usize] = self.netlink_status;
        sources[Source::Docker as usize] = self.docker.borrow().status;
        sources
    }

    /// The VLANs that are left alone, and why.
    fn listeners(&self) -> BTreeMap<Vid, Vec<Listener>> {
        let vlans = self.installed.vlans.iter();
        let rows = vlans.map(|(vid, parent)| (*vid, Listener::of(*parent).collect::<Vec<_>>()));
        rows.filter(|(_, listeners)| !listeners.is_empty())
            .collect()
    }

    fn round(&mut self) -> anyhow::Result<()> {
        let mut desired = desired(self.netlink.network(), self.trunk);
        self.wishes.write(&mut desired.tables);
        let begun = self.begin_at_parents(&mut desired);
        let Some(name) = desired.parents.get(&Vid::UNTAGGED) else {
            return Err(Error::TrunkGone {
                trunk: self.pins.trunk.clone(),
            }
            .into());
        };
        let named = *name == self.pins.trunk || self.rename(name);
        let plan = plan(&self.installed, &desired.tables, self.capacity);
        let incomplete = plan.incomplete() | desired.tables.unseen();
        // Before the tables lack anything; and they lack it until the last of it is there.
        self.maps
            .note(|settings| settings.incomplete |= incomplete)?;
        let applied = self.maps.apply(&plan);
        match applied {
            Ok(()) => plan.apply_to(&mut self.installed),
            // Some of it was done: the maps themselves say how much.
            Err(_) => self.installed = self.maps.read()?,
        }
        applied?;
        self.incomplete = incomplete;
        self.behind = !named || !begun;
        self.report(desired, &plan)
    }

    /// Has the shortcut begin at the VLANs' own devices, or says that it has to be tried again.
    fn begin_at_parents(&mut self, desired: &mut Desired) -> bool {
        let Some(parents) = &mut self.parents else {
            return true;
        };
        let followed = parents.follow(&desired.senders());
        if let Err(error) = &followed {
            log::warn!("{error:#}; the shortcut begins at the trunk there");
        }
        for parent in desired.tables.vlans.values_mut() {
            if parents.has(parent.ifindex) {
                parent.flags |= Parent::PROGRAM;
            }
        }
        followed.is_ok()
    }

    /// Follows the trunk's name, or says that it has to be tried again: another trunk's pins may be in the
    /// way until that has followed its own.
    fn rename(&mut self, name: &str) -> bool {
        let renamed = self.pins.rename(name);
        match &renamed {
            Ok(()) => log::warn!("the trunk is called {name} now"),
            Err(error) => log::warn!("{error:#}"),
        }
        renamed.is_ok()
    }

    /// Tells `status` and the metrics.
    fn report(&mut self, desired: Desired, plan: &Plan) -> anyhow::Result<()> {
        let docker = self.docker.borrow_and_update().clone();
        let sources = self.sources();
        self.maps.set_status(&Status {
            sources,
            endpoints_left_out: plan.endpoints.left_out,
            neighbors_left_out: plan.neighbors.left_out,
            service_parents: desired.service_parents,
            stacked: desired.stacked,
            routes_left_out: plan.routes.left_out,
            reserved: [0; 3],
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
        let mut published = Published {
            trunk: self.pins.trunk.clone(),
            parents: Arc::new(desired.parents),
            endpoints: Arc::new(endpoints),
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
                fill(
                    ROUTES,
                    installed.routes.len(),
                    self.capacity.routes,
                    plan.routes.left_out,
                ),
            ],
            sources,
            hooks: self.hooks.clone(),
            policy: self.maps.settings()?.policy,
            listeners: Arc::new(self.listeners()),
        };
        if self.wishes.routes == Routes::None {
            published.maps.retain(|fill| fill.map != ROUTES);
        }
        self.publish.send_replace(Some(Arc::new(published)));
        Ok(())
    }
}

/// Whether a failure is that the trunk is gone: nothing can be attached to it any more.
pub fn is_gone(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(Error::TrunkGone { .. }))
}

/// Moves the heartbeat for as long as the maps are true; past it, the programs pass every frame.
pub async fn heartbeat(maps: &mut Maps, truth: Truth) -> anyhow::Result<Infallible> {
    let mut last = Instant::now();
    loop {
        sleep(BEAT).await;
        // After a pause of the whole process nobody knows yet what has changed meanwhile.
        let rested = last.elapsed() < VALIDITY;
        last = Instant::now();
        if rested && truth.holds() {
            maps.beat(VALIDITY)?;
        }
    }
}

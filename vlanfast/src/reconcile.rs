//! The reconciliation loop keeps the maps up to date: it reads the sources, computes the desired tables and the changes
//! to the installed ones, applies these to the maps, and publishes a report for metrics. Each round starts from
//! scratch, so that a lost event causes a delay but never a wrong table.

mod address_watch;
mod hook_watch;
mod owners;
pub mod packet_receivers;
mod probe;
mod publish;
mod receiver_watch;
mod search;

use std::{collections::BTreeSet, convert::Infallible, sync::Arc, time::Duration};

use anyhow::{Context, anyhow};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};
use vlanfast_common::{Direction, Parent, Settings, SourceState, SourceStatus, Vid};

use self::search::Search;
use crate::{
    clock,
    error::Error,
    hooks,
    hooks::Watch,
    maps::{heartbeat, heartbeat::Freshness, tables::TableMaps},
    names::docker,
    netlink::{Inventory, Netlink},
    pins::Pins,
    reconcile::{owners::Owners, packet_receivers::PacketReceivers},
    state::{
        address_owners::Given,
        config::VlanConfig,
        desired::desired,
        name::Name,
        plan::{Capacity, plan},
        quotas::Quotas,
        report::{HookState, Report},
        snapshot::{Ifindex, Nsid},
        tables::DesiredTables,
    },
};

/// How long to wait for more events before reading. A container's start causes a dozen within milliseconds.
const SETTLE: Duration = Duration::from_millis(5);
/// How often everything is read again without an event, in case the kernel failed to report a change.
const FULL_READ: Duration = Duration::from_secs(60);
/// How often the hooks are checked. The kernel reports changes of qdiscs and filters, but not of tcx and XDP links.
const CHECK: Duration = Duration::from_secs(2);
/// The shortest time between two checks of the hooks, however often filters change.
const SPACING: Duration = Duration::from_millis(200);
/// How long to wait before a source that failed is read again.
const RETRY: Duration = Duration::from_secs(1);

/// The loop's state.
pub struct Reconciler {
    netlink: Inventory,
    docker: watch::Receiver<docker::State>,
    maps: TableMaps,
    pins: Pins,
    trunk: Ifindex,
    config: VlanConfig,
    capacity: Capacity,
    quotas: Quotas,
    /// The namespaces for which a warning about their quota has been logged.
    over: BTreeSet<i32>,
    /// The contents of the maps.
    installed: DesiredTables,
    netlink_status: SourceStatus,
    /// The time since which netlink could not be read completely.
    incomplete_since: Option<Instant>,
    /// A round is needed although the network has not changed: the last round failed, the pins did not follow the
    /// trunk's name, or Docker has other names.
    behind: bool,
    owners: Owners,
    hooks: Vec<HookState>,
    /// `None` until the programs are attached.
    watch: Option<Watch>,
    /// The programs at the VLANs' own devices, where the shortcut begins.
    parents: Option<hooks::Parents>,
    /// The programs that read these maps are attached.
    attached: bool,
    /// The incomplete tables, as bits of [`Settings::incomplete`].
    incomplete: u32,
    tags_hidden: bool,
    /// Netlink did not answer the last check of the hooks.
    is_silent: bool,
    freshness: Freshness,
    packet_receivers: PacketReceivers,
    search: Search,
    publish: watch::Sender<Option<Arc<Report>>>,
}

impl Reconciler {
    /// Reads the sources and fills the maps, which must be empty. The programs that use them must be attached only
    /// afterwards.
    pub async fn fill(
        pins: Pins,
        trunk: Ifindex,
        config: VlanConfig,
        quotas: Quotas,
        maps: TableMaps,
        docker: watch::Receiver<docker::State>,
    ) -> anyhow::Result<Self> {
        let mut reconciler = Self {
            netlink: Inventory::open().await?,
            docker,
            capacity: maps.capacity()?,
            maps,
            pins,
            trunk,
            owners: Owners::new(&config)?,
            config,
            quotas,
            over: BTreeSet::new(),
            installed: DesiredTables::default(),
            netlink_status: SourceStatus {
                state: SourceState::Starting as u32,
                ..SourceStatus::default()
            },
            incomplete_since: None,
            behind: false,
            hooks: vec![],
            watch: None,
            parents: None,
            attached: false,
            incomplete: 0,
            tags_hidden: false,
            is_silent: false,
            freshness: Freshness::default(),
            packet_receivers: PacketReceivers::open()?,
            search: Search::default(),
            publish: watch::Sender::default(),
        };
        reconciler.search(false).await?;
        reconciler.follow().await?;
        Ok(reconciler)
    }

    /// Returns the pins of the trunk under its current name.
    pub const fn pins(&self) -> &Pins {
        &self.pins
    }

    /// Returns the trunk's own entry in the map `VLANS`.
    pub fn untagged(&self) -> Parent {
        let vlans = &self.installed.vlans;
        vlans.get(&Vid::UNTAGGED).copied().unwrap_or_default()
    }

    /// Starts to publish a report after each round, and to watch the hooks, which have been attached by now.
    pub async fn publish(
        &mut self,
        kernel: &Netlink,
        attached: [(Direction, hooks::AttachKind); 2],
        parents: Option<hooks::Parents>,
    ) -> anyhow::Result<watch::Receiver<Option<Arc<Report>>>> {
        let watch = Watch::of(attached);
        self.hooks = watch.published(self.maps.settings()?.ingress_reason);
        self.watch = Some(watch);
        self.check_hooks(kernel).await?;
        self.parents = parents;
        self.attached = true;
        // Attaching may have taken seconds.
        self.behind = true;
        self.follow().await?;
        Ok(self.publish.subscribe())
    }

    /// Returns a handle to the freshness of the maps, which the heartbeat reads.
    pub fn freshness(&self) -> Freshness {
        self.freshness.clone()
    }

    /// Follows the sources and watches the hooks until the trunk is gone or another failure cannot be retried.
    pub async fn run(&mut self, kernel: &Netlink) -> anyhow::Result<Infallible> {
        let mut full_read = Instant::now() + FULL_READ;
        let (mut checked, mut check) = (Instant::now(), Instant::now() + CHECK);
        loop {
            let probe = self.owners.due().unwrap_or(full_read);
            let due = tokio::select! {
                heard = self.netlink.changed() => {
                    heard.context("failed to listen to netlink events")?;
                    self.settle().await
                }
                Ok(()) = self.docker.changed() => {
                    self.behind = true;
                    true
                }
                () = sleep_until(full_read) => {
                    self.freshness.mark_stale();
                    self.netlink.mark_stale();
                    full_read = Instant::now() + FULL_READ;
                    true
                }
                () = sleep_until(check) => false,
                () = sleep_until(probe) => self.send_probes()?,
            };
            if self
                .packet_receivers
                .mark_stale(&self.netlink.take_hook_events())
            {
                check = check.min(checked + SPACING);
            }
            self.check_trunk()?;
            let mut differs = false;
            if Instant::now() >= check {
                differs = self.watch_hooks(kernel).await?;
                differs |= self.poll_claims().await;
                checked = Instant::now();
                check = checked + CHECK;
            }
            if !due && !differs {
                continue;
            }
            match self.follow().await {
                Ok(()) => {
                    let is_withheld = self.hides_tags();
                    self.freshness.withhold(is_withheld);
                    if !self.is_silent && self.netlink.is_caught_up() {
                        self.freshness.mark_fresh();
                    }
                }
                Err(error) if is_gone(&error) => return Err(error),
                Err(error) => {
                    log::warn!("{error:#}; trying again");
                    self.failed();
                    self.netlink.mark_stale();
                    sleep(RETRY).await;
                }
            }
        }
    }

    /// Returns an error if the trunk was removed or moved to another namespace. This is checked before anything is done
    /// to the device, because another device may have its index by now.
    pub fn check_trunk(&mut self) -> anyhow::Result<()> {
        self.netlink.drain_events();
        match self.netlink.take_lost(self.trunk) {
            true => {
                let trunk = self.pins.trunk.to_string();
                Err(Error::TrunkGone { trunk }.into())
            }
            false => Ok(()),
        }
    }

    /// Waits a moment for further events if devices or addresses have changed, and returns whether they have.
    async fn settle(&mut self) -> bool {
        if !self.netlink.is_behind() {
            return false;
        }
        self.freshness.mark_stale();
        // Until a new endpoint is in the tables, frames for it must not be dropped.
        let changing = |settings: &mut Settings| settings.incomplete |= Settings::CHANGING;
        if let Err(error) = self.maps.update_settings(changing) {
            log::warn!("{error:#}");
        }
        sleep(SETTLE).await;
        true
    }

    /// Reads the sources and brings the maps up to date.
    async fn follow(&mut self) -> anyhow::Result<()> {
        let differs = self.netlink.refresh().await?;
        self.record_read();
        match differs || self.behind {
            true => {
                self.require_trunk().await?;
                self.follow_receivers().await?;
                self.round().await?;
            }
            false => self.report_sources()?,
        }
        let changing = u32::from(!self.netlink.is_caught_up()) * Settings::CHANGING;
        let incomplete = self.incomplete | self.unread() | changing;
        // The programs of a previous process share SETTINGS with us, but have tables of their own.
        match self.attached {
            true => self
                .maps
                .update_settings(|settings| settings.incomplete = incomplete),
            false => Ok(()),
        }
    }

    /// Records whether netlink was read completely. An incomplete read counts as a failure only after a while, because
    /// it usually means that something changed during the read.
    fn record_read(&mut self) {
        if self.netlink.is_whole() {
            self.incomplete_since = None;
            self.netlink_status = SourceStatus {
                state: SourceState::Ok as u32,
                last_success: clock::seconds_since_1970(),
                reserved: 0,
            };
        } else if self
            .incomplete_since
            .get_or_insert_with(Instant::now)
            .elapsed()
            > heartbeat::VALIDITY
        {
            if self.netlink_status.state != SourceState::Unreachable as u32 {
                log::warn!(
                    "netlink can't be read completely; until it can, no frame is dropped or limited for lack of a receiver"
                );
            }
            self.netlink_status.state = SourceState::Unreachable as u32;
        }
    }

    /// Returns the tables that may be incomplete because netlink could not be read completely, as bits of
    /// [`Settings::incomplete`]. An endpoint that was not read must not count as absent.
    fn unread(&self) -> u32 {
        match self.netlink.is_whole() {
            true => 0,
            false => Settings::ENDPOINTS | Settings::NEIGHBORS | Settings::VLANS,
        }
    }

    /// Returns an error unless the trunk was read. Without the trunk, the tables would be empty; but it counts as gone
    /// only if the kernel says so.
    async fn require_trunk(&mut self) -> anyhow::Result<()> {
        let trunk = (Nsid::Own, self.trunk);
        if self.netlink.snapshot().find(trunk).is_some() {
            return Ok(());
        }
        let name = self.pins.trunk.to_string();
        match self.netlink.is_gone(self.trunk).await? {
            true => Err(Error::TrunkGone { trunk: name }.into()),
            false => Err(anyhow!("netlink's record of {name} can't be read")),
        }
    }

    /// Publishes that the maps are not kept up to date for the moment.
    fn failed(&mut self) {
        self.behind = true;
        self.freshness.mark_stale();
        self.netlink_status.state = SourceState::Unreachable as u32;
        // Writing to the maps may be what failed. The cause has been logged already.
        let _ = self.report_sources();
    }

    async fn round(&mut self) -> anyhow::Result<()> {
        let given = Given::by(&self.docker.borrow().docker);
        let mut desired = desired(self.netlink.snapshot(), self.trunk, &given);
        let before = std::mem::take(&mut self.installed);
        let heard = self.collect_claims(&desired.tables, &before).await;
        self.installed = before;
        heard?;
        self.assess_addresses(&mut desired.tables)?;
        self.config.write(&mut desired.tables);
        let attached = self.attach_parents(&mut desired);
        let name = desired.parents.get(&Vid::UNTAGGED).cloned();
        let name = name.with_context(|| format!("netlink does not show {}", self.pins.trunk))?;
        let renamed = name == self.pins.trunk || self.rename(&name);
        let plan = plan(&self.installed, &desired, self.capacity, self.quotas);
        let incomplete = desired.tables.unseen();
        // The list of incomplete VLANs and their entries cannot be written atomically.
        let shifts = u32::from(plan.changes_what_is_left_out(&self.installed));
        let for_now =
            incomplete | self.unread() | (shifts * (Settings::ENDPOINTS | Settings::NEIGHBORS));
        // The tables are marked as incomplete before the first entry is removed, and until the last one is written.
        self.maps
            .update_settings(|settings| settings.incomplete |= for_now)?;
        let applied = self.maps.apply(&plan);
        match applied {
            Ok(()) => plan.apply_to(&mut self.installed),
            // A part of the plan was applied. The maps are read to find out which.
            Err(_) => self.installed = self.maps.read()?,
        }
        applied?;
        self.incomplete = incomplete;
        self.behind = !renamed || !attached;
        self.report(desired, &plan)
    }

    /// Moves the pins to the trunk's new name. Returns false if that has to be repeated.
    fn rename(&mut self, name: &Name) -> bool {
        let renamed = self.pins.rename(name);
        match &renamed {
            Ok(()) => log::warn!("the trunk has been renamed to {name}"),
            Err(error) => log::warn!("{error:#}"),
        }
        renamed.is_ok()
    }
}

/// Whether an error means that the trunk is gone, so that nothing can be attached to it any more.
pub fn is_gone(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(Error::TrunkGone { .. }))
}

/// Whether an error means that the pins were removed, so that nothing can be found by them any more.
pub fn are_pins_gone(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(Error::PinsGone { .. }))
}

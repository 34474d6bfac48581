//! The reconciliation loop keeps the maps up to date: it reads the sources, computes the desired tables and the changes to
//! the installed ones, applies these to the maps, and publishes a report for metrics. Each round starts from scratch, so
//! that a lost event causes a delay but never a wrong table.

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
/// Reads everything anew however quiet it is, should the kernel ever have kept something from us.
const DOUBT: Duration = Duration::from_secs(60);
/// Looks at the hooks: the kernel tells of qdiscs and filters, and of tcx programs and XDP links it does not.
const LOOK: Duration = Duration::from_secs(2);
/// Between two looks, however often somebody changes filters.
const SPACE: Duration = Duration::from_millis(200);
/// Before a source that failed is asked anew.
const PAUSE: Duration = Duration::from_secs(1);

/// The loop's state.
pub struct Reconciler {
    netlink: Inventory,
    docker: watch::Receiver<docker::State>,
    maps: TableMaps,
    pins: Pins,
    trunk: Ifindex,
    wishes: VlanConfig,
    capacity: Capacity,
    quotas: Quotas,
    /// The namespaces that were said to have more than their share.
    over: BTreeSet<i32>,
    /// What is in the maps.
    installed: DesiredTables,
    netlink_status: SourceStatus,
    /// Since when netlink can't be read as a whole.
    torn: Option<Instant>,
    /// There is something to do though the network is as it was: the last round failed, the pins did not
    /// follow the trunk's name, or Docker has other names.
    behind: bool,
    owners: Owners,
    hooks: Vec<HookState>,
    /// Once the programs are attached.
    watch: Option<Watch>,
    /// Where the shortcut begins at the VLANs' own devices.
    parents: Option<hooks::Parents>,
    /// The programs that read these maps are at work.
    attached: bool,
    /// Which tables lack something, as [`Settings::incomplete`] has it.
    incomplete: u32,
    tags_hidden: bool,
    /// Netlink did not answer when it was asked about the hooks.
    is_silent: bool,
    freshness: Freshness,
    packet_receivers: PacketReceivers,
    search: Search,
    publish: watch::Sender<Option<Arc<Report>>>,
}

impl Reconciler {
    /// Reads the sources and fills the maps, which must be empty: the programs that use them are to be
    /// attached only then.
    pub async fn fill(
        pins: Pins,
        trunk: Ifindex,
        wishes: VlanConfig,
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
            owners: Owners::new(&wishes)?,
            wishes,
            quotas,
            over: BTreeSet::new(),
            installed: DesiredTables::default(),
            netlink_status: SourceStatus {
                state: SourceState::Starting as u32,
                ..SourceStatus::default()
            },
            torn: None,
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
        kernel: &Netlink,
        attached: [(Direction, hooks::AttachKind); 2],
        parents: Option<hooks::Parents>,
    ) -> anyhow::Result<watch::Receiver<Option<Arc<Report>>>> {
        let watch = Watch::of(attached);
        self.hooks = watch.published(self.maps.settings()?.ingress_reason);
        self.watch = Some(watch);
        self.look_at_hooks(kernel).await?;
        self.parents = parents;
        self.attached = true;
        // Attaching may have taken seconds.
        self.behind = true;
        self.follow().await?;
        Ok(self.publish.subscribe())
    }

    /// How fresh the maps are, for the heartbeat.
    pub fn freshness(&self) -> Freshness {
        self.freshness.clone()
    }

    /// Follows the sources and watches the hooks until the trunk is gone, which is an error like any other.
    pub async fn run(&mut self, kernel: &Netlink) -> anyhow::Result<Infallible> {
        let mut doubt = Instant::now() + DOUBT;
        let (mut looked, mut look) = (Instant::now(), Instant::now() + LOOK);
        loop {
            let ask = self.owners.due().unwrap_or(doubt);
            let due = tokio::select! {
                heard = self.netlink.changed() => {
                    heard.context("failed to listen to netlink events")?;
                    self.settle().await
                }
                Ok(()) = self.docker.changed() => {
                    self.behind = true;
                    true
                }
                () = sleep_until(doubt) => {
                    self.freshness.mark_stale();
                    self.netlink.mark_stale();
                    doubt = Instant::now() + DOUBT;
                    true
                }
                () = sleep_until(look) => false,
                () = sleep_until(ask) => self.ask()?,
            };
            if self
                .packet_receivers
                .mark_stale(&self.netlink.take_hook_events())
            {
                look = look.min(looked + SPACE);
            }
            self.is_still_there()?;
            let mut differs = false;
            if Instant::now() >= look {
                differs = self.watch_hooks(kernel).await?;
                differs |= self.listen_for_claims().await;
                looked = Instant::now();
                look = looked + LOOK;
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
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// Fails where the trunk was removed, or moved elsewhere: before anything is done to the device that has its
    /// index by now.
    pub fn is_still_there(&mut self) -> anyhow::Result<()> {
        self.netlink.hear();
        match self.netlink.take_loss(self.trunk) {
            true => {
                let trunk = self.pins.trunk.to_string();
                Err(Error::TrunkGone { trunk }.into())
            }
            false => Ok(()),
        }
    }

    /// Lets what belongs together come together, where devices or addresses have changed; whether they have.
    async fn settle(&mut self) -> bool {
        if !self.netlink.is_behind() {
            return false;
        }
        self.freshness.mark_stale();
        // Whoever is new must not lose what comes for it before it is in the tables.
        let changing = |settings: &mut Settings| settings.incomplete |= Settings::CHANGING;
        if let Err(error) = self.maps.update_settings(changing) {
            log::warn!("{error:#}");
        }
        sleep(SETTLE).await;
        true
    }

    /// From what the sources show by now to what is in the maps.
    async fn follow(&mut self) -> anyhow::Result<()> {
        let differs = self.netlink.refresh().await?;
        self.note_success();
        match differs || self.behind {
            true => {
                self.see_the_trunk().await?;
                self.follow_receivers().await?;
                self.round().await?;
            }
            false => self.report_sources()?,
        }
        let changing = u32::from(!self.netlink.is_caught_up()) * Settings::CHANGING;
        let incomplete = self.incomplete | self.unread() | changing;
        // The programs of a process that was there before share the note, and have tables of their own.
        match self.attached {
            true => self
                .maps
                .update_settings(|settings| settings.incomplete = incomplete),
            false => Ok(()),
        }
    }

    /// Only a whole read is a success. One that is not, is for a moment no failure either: something changed
    /// in its middle.
    fn note_success(&mut self) {
        if self.netlink.is_whole() {
            self.torn = None;
            self.netlink_status = SourceStatus {
                state: SourceState::Ok as u32,
                last_success: clock::seconds_since_1970(),
                reserved: 0,
            };
        } else if self.torn.get_or_insert_with(Instant::now).elapsed() > heartbeat::VALIDITY {
            if self.netlink_status.state != SourceState::Unreachable as u32 {
                log::warn!(
                    "netlink can't be read as a whole: until it can, nothing is dropped or limited for want of a receiver"
                );
            }
            self.netlink_status.state = SourceState::Unreachable as u32;
        }
    }

    /// What the tables may lack because it can't be read, as [`Settings::incomplete`] has it: who is not seen is
    /// not absent.
    fn unread(&self) -> u32 {
        match self.netlink.is_whole() {
            true => 0,
            false => Settings::ENDPOINTS | Settings::NEIGHBORS | Settings::VLANS,
        }
    }

    /// Without the trunk, the tables would be empty; but only the kernel's word means that it is gone.
    async fn see_the_trunk(&mut self) -> anyhow::Result<()> {
        let trunk = (Nsid::Own, self.trunk);
        if self.netlink.network().find(trunk).is_some() {
            return Ok(());
        }
        let name = self.pins.trunk.to_string();
        match self.netlink.is_gone(self.trunk).await? {
            true => Err(Error::TrunkGone { trunk: name }.into()),
            false => Err(anyhow!("what netlink says of {name} can't be read")),
        }
    }

    /// Lets everybody know that the maps are not kept up to date for the moment.
    fn failed(&mut self) {
        self.behind = true;
        self.freshness.mark_stale();
        self.netlink_status.state = SourceState::Unreachable as u32;
        // It may be the maps that failed; the warning has said why.
        let _ = self.report_sources();
    }

    async fn round(&mut self) -> anyhow::Result<()> {
        let given = Given::by(&self.docker.borrow().docker);
        let mut desired = desired(self.netlink.network(), self.trunk, &given);
        let before = std::mem::take(&mut self.installed);
        let heard = self.hear_claims(&desired.tables, &before).await;
        self.installed = before;
        heard?;
        self.judge(&mut desired.tables)?;
        self.wishes.write(&mut desired.tables);
        let begun = self.begin_at_parents(&mut desired);
        let name = desired.parents.get(&Vid::UNTAGGED).cloned();
        let name = name.with_context(|| format!("nobody has seen {}", self.pins.trunk))?;
        let named = name == self.pins.trunk || self.rename(&name);
        let plan = plan(&self.installed, &desired, self.capacity, self.quotas);
        let incomplete = desired.tables.unseen();
        // The VLANs that lack something, and what they lack, are not written at one stroke.
        let shifts = u32::from(plan.changes_what_is_left_out(&self.installed));
        let for_now =
            incomplete | self.unread() | (shifts * (Settings::ENDPOINTS | Settings::NEIGHBORS));
        // Before the tables lack anything; and they lack it until the last of it is there.
        self.maps
            .update_settings(|settings| settings.incomplete |= for_now)?;
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

    /// Follows the trunk's name, or says that it has to be tried again.
    fn rename(&mut self, name: &Name) -> bool {
        let renamed = self.pins.rename(name);
        match &renamed {
            Ok(()) => log::warn!("the trunk is called {name} now"),
            Err(error) => log::warn!("{error:#}"),
        }
        renamed.is_ok()
    }
}

/// Whether a failure is that the trunk is gone: nothing can be attached to it any more.
pub fn is_gone(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(Error::TrunkGone { .. }))
}

/// Whether a failure is that somebody has removed the pins: what was by them can't be found that way.
pub fn are_pins_gone(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(Error::PinsGone { .. }))
}

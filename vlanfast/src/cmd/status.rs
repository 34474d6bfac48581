//! `vlanfast status`: what the kernel says is attached, and what is in its maps.

mod policy;
mod text;
mod vlans;
mod warnings;

use anyhow::Context;
use serde::Serialize;
use vlanfast_common::{IngressReason, Policy, Settings, Source, SourceState};

use self::{
    policy::PolicyRow,
    text::text,
    vlans::{Vlan, vlans},
};
use super::attached;
use crate::{
    cli::StatusArgs,
    clock::seconds_since_1970,
    error::Error,
    hooks,
    hooks::{HOOKS, check_kernel, choose, device::Trunk, trunks},
    maps::{
        tables,
        tables::{Heartbeat, Maps},
    },
    netlink,
    netlink::Netlink,
    output,
    pins::{Holder, Pins, ROUTES, STATUS},
    state::{claims::conflicts, report::MapFill, tables::DesiredTables},
};

/// The shape of `status --json`.
#[derive(Serialize)]
struct Status {
    trunk: String,
    ifindex: u32,
    hooks: Vec<Hook>,
    /// The hooks that somebody took our program off.
    missing: Vec<&'static str>,
    ingress: Ingress,
    /// `alive`; or `expired` or `stopped`, and every frame is passed.
    heartbeat: &'static str,
    /// The process that is attached, where its number means something here.
    pid: Option<i32>,
    #[serde(skip)]
    holder: Option<Holder>,
    policy: PolicyRow,
    /// Where what is switched on does not do what it seems to.
    warnings: Vec<String>,
    vlans: Vec<Vlan>,
    maps: Vec<Map>,
    sources: Vec<SourceRow>,
    ignored: Ignored,
}

/// In its place where there is none.
#[derive(Serialize)]
#[serde(untagged)]
enum Without {
    /// Nothing is attached yet.
    Starting {
        trunk: String,
        heartbeat: &'static str,
        pid: Option<i32>,
    },
    Failed {
        trunk: String,
        error: String,
    },
}

#[derive(Serialize)]
struct Hook {
    hook: &'static str,
    kind: &'static str,
    pinned: bool,
    /// Other people's programs and filters that run before ours.
    preceded_by: Vec<String>,
}

#[derive(Serialize)]
struct Ingress {
    chosen: &'static str,
    reason: String,
    /// `rx-vlan-offload` is off for it; detaching turns it on again.
    managed_offload: bool,
}

#[derive(Serialize)]
struct Map {
    map: &'static str,
    entries: u32,
    capacity: u32,
    /// Entries that found no room: their frames take the kernel's own path.
    left_out: u32,
}

#[derive(Serialize)]
struct SourceRow {
    source: &'static str,
    state: &'static str,
    /// Since it was last read; null for never.
    age_seconds: Option<u64>,
}

impl From<MapFill> for Map {
    fn from(fill: MapFill) -> Self {
        let MapFill {
            map,
            entries,
            capacity,
            left_out,
        } = fill;
        Self {
            map,
            entries,
            capacity,
            left_out,
        }
    }
}

/// What is on the trunk and beyond vlanfast.
#[derive(Serialize)]
struct Ignored {
    /// 802.1ad devices.
    service_parents: u32,
    /// Devices on more than one tag.
    stacked: u32,
}

pub async fn run(args: &StatusArgs) -> anyhow::Result<()> {
    check_kernel()?;
    let netlink = Netlink::connect()?;
    let all = attached(args.trunk.as_ref()).await?;
    if all.is_empty() && !args.json {
        return output::text("nothing attached: run `vlanfast attach TRUNK`\n");
    }
    let mut failed = Ok(());
    for pins in &all {
        if let Some(holder) = starting(pins) {
            show_starting(pins, holder, args.json)?;
            continue;
        }
        match read(&netlink, pins).await {
            Ok(status) if args.json => output::json(&status)?,
            Ok(status) => output::text(&text(&status))?,
            // The others can be shown all the same.
            Err(error) => {
                show_failed(pins, &error, args.json)?;
                failed = failed.and(Err(error));
            }
        }
    }
    match all.len() {
        1 => failed,
        _ => failed.context("not every trunk can be shown"),
    }
}

/// The process that fills the maps for the first time: what `status` reads is not there yet.
fn starting(pins: &Pins) -> Option<Holder> {
    let holder = pins.holder()?;
    let has_status = pins.has(&pins.path(STATUS));
    has_status.is_ok_and(|has| !has).then_some(holder)
}

fn show_starting(pins: &Pins, holder: Holder, json: bool) -> anyhow::Result<()> {
    let trunk = pins.trunk.to_string();
    match json {
        true => output::json(&Without::Starting {
            trunk,
            heartbeat: "starting",
            pid: holder.pid,
        }),
        false => output::text(&format!(
            "{trunk}: starting, by process {holder}: it reads who is there, then attaches\n"
        )),
    }
}

fn show_failed(pins: &Pins, error: &anyhow::Error, json: bool) -> anyhow::Result<()> {
    let (trunk, error) = (pins.trunk.to_string(), output::line(&format!("{error:#}")));
    match json {
        true => output::json(&Without::Failed { trunk, error }),
        false => output::text(&format!("{trunk}: can't be shown: {error}\n")),
    }
}

/// One trunk's status, for people.
pub async fn shown(netlink: &Netlink, pins: &Pins) -> anyhow::Result<String> {
    Ok(text(&read(netlink, pins).await?))
}

async fn read(netlink: &Netlink, pins: &Pins) -> anyhow::Result<Status> {
    let maps = Maps::open(pins)?;
    let settings = maps.settings()?;
    let trunk = device(netlink, pins, settings.ifindex)
        .await
        .with_context(|| {
            format!(
                "there are pins of {0}, but no such trunk here any more; run `vlanfast detach {0}` to remove them",
                pins.trunk
            )
        })?;
    let Hooks {
        attached,
        missing,
        chosen,
    } = at_hooks(netlink, &trunk, pins).await?;
    let reason = match IngressReason::from_number(settings.ingress_reason) {
        Some(reason) => choose::explain(reason, &trunk),
        None => "for a reason that this version does not know".into(),
    };
    let tables = maps.read()?;
    let said = maps.status()?;
    let Settings { policy, .. } = settings;
    let trunk_name = trunk.name.to_string();
    let holder = pins.holder();
    let mut warnings = warnings::all(
        &trunk,
        (&attached, &missing),
        &settings,
        (&tables.vlans, chosen),
    );
    warnings.extend(warnings::of_conflicts(conflicts(&tables, &maps.claims()?)));
    warnings.extend(warnings::of_quotas(&said));
    Ok(Status {
        policy: PolicyRow::from(policy),
        warnings,
        trunk: trunk_name,
        ifindex: trunk.ifindex,
        hooks: attached,
        missing,
        ingress: Ingress {
            chosen,
            reason,
            managed_offload: settings.managed_offload != 0,
        },
        heartbeat: Heartbeat::of(&settings, tables::now()?).name(),
        pid: holder.and_then(|holder| holder.pid),
        holder,
        vlans: vlans(&tables, policy, &netlink::names().await?),
        maps: fills(&maps, &tables, policy)?,
        sources: sources(&said),
        ignored: Ignored {
            service_parents: said.service_parents,
            stacked: said.stacked,
        },
    })
}

/// What is at the hooks.
struct Hooks {
    attached: Vec<Hook>,
    missing: Vec<&'static str>,
    /// How ingress is read.
    chosen: &'static str,
}

async fn at_hooks(netlink: &Netlink, trunk: &Trunk, pins: &Pins) -> anyhow::Result<Hooks> {
    let mut all = Hooks {
        attached: vec![],
        missing: vec![],
        chosen: "none",
    };
    for hook in HOOKS {
        let seen = hooks::look(netlink, trunk, pins, hook).await?;
        let hook = hooks::name(hook);
        let Some(kind) = seen.kind else {
            all.missing.push(hook);
            continue;
        };
        if hook == "ingress" {
            all.chosen = if kind.is_xdp() { "xdp" } else { "tc" };
        }
        all.attached.push(Hook {
            hook,
            kind: kind.as_str(),
            pinned: true,
            preceded_by: seen.before,
        });
    }
    Ok(all)
}

/// How full the tables are that are in use.
fn fills(maps: &Maps, tables: &DesiredTables, policy: Policy) -> anyhow::Result<Vec<Map>> {
    let is_in_use = |fill: &MapFill| fill.map != ROUTES || policy.shortcut != 0;
    let fills = maps.fills(tables)?.into_iter().filter(is_in_use);
    Ok(fills.map(Map::from).collect())
}

/// The device that the pins are of.
async fn device(netlink: &Netlink, pins: &Pins, ifindex: u32) -> anyhow::Result<Trunk> {
    // It may have another name than when somebody was attached last.
    let trunk = match trunks::owner(netlink, pins).await? {
        Some(owner) => owner,
        None => Trunk::find(netlink, &pins.trunk).await?,
    };
    if trunk.ifindex != ifindex {
        let trunk = trunk.name.to_string();
        return Err(Error::TrunkGone { trunk }.into());
    }
    Ok(trunk)
}

fn sources(said: &vlanfast_common::Status) -> Vec<SourceRow> {
    let now = seconds_since_1970();
    let row = |source: Source| {
        let status = said.sources[source as usize];
        SourceRow {
            source: source.name(),
            state: SourceState::from_number(status.state).map_or("unknown", SourceState::name),
            age_seconds: (status.last_success != 0)
                .then(|| now.saturating_sub(status.last_success)),
        }
    };
    Source::ALL.map(row).into()
}

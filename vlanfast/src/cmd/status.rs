//! `vlanfast status`: shows what the kernel says is attached, and what is in its maps.

mod policy;
mod report;
mod text;
mod vlans;
mod warnings;

use anyhow::Context;
use vlanfast_common::{IngressReason, Settings, Source, SourceState};

use self::{
    policy::PolicyRow,
    report::{HookReport, Ignored, IngressReport, SourceReport, StatusReport, Unavailable},
    text::text,
    vlans::vlans,
};
use crate::{
    cli::StatusArgs,
    clock::seconds_since_1970,
    cmd::trunks::attached,
    error::Error,
    hooks::{
        HOOKS, check_requirements, choose, device::Trunk, inspect::inspect, kind::hook_name, locate,
    },
    maps::{
        tables,
        tables::{Heartbeat, TableMaps},
    },
    netlink,
    netlink::Netlink,
    output,
    pins::{Holder, Pins, STATUS},
    state::claims::conflicts,
};

pub async fn run(args: &StatusArgs) -> anyhow::Result<()> {
    check_requirements()?;
    let netlink = Netlink::connect()?;
    let all = attached(args.trunk.as_ref()).await?;
    if all.is_empty() && !args.json {
        return output::text(
            "vlanfast is not attached to any trunk: run `vlanfast attach TRUNK`\n",
        );
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
            // The other trunks are shown all the same.
            Err(error) => {
                show_failed(pins, &error, args.json)?;
                failed = failed.and(Err(error));
            }
        }
    }
    match all.len() {
        1 => failed,
        _ => failed.context("not every trunk could be shown"),
    }
}

/// The process that is filling the maps for the first time, if there is one. The maps that `status` reads are not
/// pinned yet.
fn starting(pins: &Pins) -> Option<Holder> {
    let holder = pins.holder()?;
    let has_status = pins.has(&pins.path(STATUS));
    has_status.is_ok_and(|has| !has).then_some(holder)
}

fn show_starting(pins: &Pins, holder: Holder, json: bool) -> anyhow::Result<()> {
    let trunk = pins.trunk.to_string();
    match json {
        true => output::json(&Unavailable::Starting {
            trunk,
            heartbeat: "starting",
            pid: holder.pid,
        }),
        false => output::text(&format!(
            "{trunk}: starting, process {holder} reads the network and then attaches\n"
        )),
    }
}

fn show_failed(pins: &Pins, error: &anyhow::Error, json: bool) -> anyhow::Result<()> {
    let (trunk, error) = (pins.trunk.to_string(), output::line(&format!("{error:#}")));
    match json {
        true => output::json(&Unavailable::Failed { trunk, error }),
        false => output::text(&format!("{trunk}: failed to read its status: {error}\n")),
    }
}

/// The status of one trunk as text.
pub async fn shown(netlink: &Netlink, pins: &Pins) -> anyhow::Result<String> {
    Ok(text(&read(netlink, pins).await?))
}

async fn read(netlink: &Netlink, pins: &Pins) -> anyhow::Result<StatusReport> {
    let maps = TableMaps::open(pins)?;
    let settings = maps.settings()?;
    let trunk = device(netlink, pins, settings.ifindex)
        .await
        .with_context(|| {
            format!(
                "there are pins of {0}, but no such trunk any more; run `vlanfast detach {0}` to remove them",
                pins.trunk
            )
        })?;
    let Hooks {
        attached,
        missing,
        chosen,
    } = inspect_hooks(netlink, &trunk, pins).await?;
    let reason = match IngressReason::from_number(settings.ingress_reason) {
        Some(reason) => choose::explain(reason, &trunk),
        None => "chosen for a reason that this version does not know".into(),
    };
    let tables = maps.read()?;
    let status = maps.status()?;
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
    warnings.extend(warnings::of_quotas(&status));
    Ok(StatusReport {
        policy: PolicyRow::from(policy),
        warnings,
        trunk: trunk_name,
        ifindex: trunk.ifindex,
        hooks: attached,
        missing,
        ingress: IngressReport {
            chosen,
            reason,
            managed_offload: settings.managed_offload != 0,
        },
        heartbeat: Heartbeat::of(&settings, tables::now()?).name(),
        pid: holder.and_then(|holder| holder.pid),
        holder,
        vlans: vlans(&tables, policy, &netlink::names().await?),
        maps: maps.fills(&tables, policy.shortcut != 0)?,
        sources: sources(&status),
        ignored: Ignored {
            service_parents: status.service_parents,
            stacked: status.stacked,
        },
    })
}

/// What is attached at the hooks.
struct Hooks {
    attached: Vec<HookReport>,
    missing: Vec<&'static str>,
    /// The hook that reads ingress.
    chosen: &'static str,
}

async fn inspect_hooks(netlink: &Netlink, trunk: &Trunk, pins: &Pins) -> anyhow::Result<Hooks> {
    let mut all = Hooks {
        attached: vec![],
        missing: vec![],
        chosen: "none",
    };
    for hook in HOOKS {
        let observed = inspect(netlink, trunk, pins, hook).await?;
        let hook = hook_name(hook);
        let Some(kind) = observed.kind else {
            all.missing.push(hook);
            continue;
        };
        if hook == "ingress" {
            all.chosen = if kind.is_xdp() { "xdp" } else { "tc" };
        }
        all.attached.push(HookReport {
            hook,
            kind: kind.as_str(),
            pinned: true,
            preceded_by: observed.preceded_by,
        });
    }
    Ok(all)
}

/// The device that the pins belong to.
async fn device(netlink: &Netlink, pins: &Pins, ifindex: u32) -> anyhow::Result<Trunk> {
    // The device may have been renamed since it was attached.
    let trunk = match locate::owner(netlink, pins).await? {
        Some(owner) => owner,
        None => Trunk::find(netlink, &pins.trunk).await?,
    };
    if trunk.ifindex != ifindex {
        let trunk = trunk.name.to_string();
        return Err(Error::TrunkGone { trunk }.into());
    }
    Ok(trunk)
}

fn sources(status: &vlanfast_common::Status) -> Vec<SourceReport> {
    let now = seconds_since_1970();
    let row = |source: Source| {
        let source_status = status.sources[source as usize];
        SourceReport {
            source: source.name(),
            state: SourceState::from_number(source_status.state)
                .map_or("unknown", SourceState::name),
            age_seconds: (source_status.last_success != 0)
                .then(|| now.saturating_sub(source_status.last_success)),
        }
    };
    Source::ALL.map(row).into()
}

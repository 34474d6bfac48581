//! The report on one trunk as text.

use crate::{
    cmd::status::{
        policy::PolicyRow,
        report::{Ignored, IngressReport, StatusReport},
        vlans::VlanReport,
    },
    output,
    state::report::MapFill,
};

/// The rows of a list: a group, a name and a description.
type Rows = Vec<Vec<String>>;

/// The report as lines of text.
pub fn text(status: &StatusReport) -> String {
    let mut rows = hooks(status);
    rows.extend(policy(&status.policy));
    rows.extend(status.vlans.iter().map(vlan));
    rows.extend(status.maps.iter().map(map));
    rows.extend(sources(status));
    rows.extend(ignored(&status.ignored));
    let warnings = status.warnings.iter();
    let warnings: String = warnings
        .map(|warning| format!("  warning: {warning}\n"))
        .collect();
    format!("{}\n{}{warnings}", heading(status), output::list(&rows))
}

fn row(group: &str, name: impl Into<String>, description: impl Into<String>) -> Vec<String> {
    vec![group.to_owned(), name.into(), description.into()]
}

fn heading(status: &StatusReport) -> String {
    let trunk = &status.trunk;
    match &status.holder {
        Some(holder) => format!(
            "{trunk}: attached by process {holder}, heartbeat {}",
            status.heartbeat
        ),
        None => format!(
            "{trunk}: attached, no daemon: every frame is passed; `vlanfast attach {trunk}` takes over, `vlanfast \
             detach {trunk}` removes it"
        ),
    }
}

fn hooks(status: &StatusReport) -> Rows {
    let IngressReport {
        reason,
        managed_offload,
        ..
    } = &status.ingress;
    let hooks = status.hooks.iter().map(|hook| {
        let reason = match (hook.hook, managed_offload) {
            ("ingress", false) => reason.clone(),
            ("ingress", true) => format!(
                "{reason}; vlanfast turned rx-vlan-offload off, and detaching turns it on again"
            ),
            _ => String::new(),
        };
        row(hook.hook, hook.kind, reason)
    });
    hooks.collect()
}

fn policy(policy: &PolicyRow) -> Rows {
    let on_off = |on| if on { "on" } else { "off" };
    let limit = |limit| match limit {
        0 => "off".into(),
        limit => format!("{limit} frames/s per VLAN"),
    };
    let host_access = match policy.host_access {
        true => "on, for the VLANs listed with it",
        false => "off",
    };
    let shortcut = match policy.shortcut_refresh {
        None => policy.shortcut.into(),
        Some(0) => format!("{}, the router is probed once per flow", policy.shortcut),
        Some(seconds) => format!(
            "{}, the router is probed again every {seconds} s",
            policy.shortcut
        ),
    };
    let mut rows = vec![
        row("policy", "steer", on_off(policy.steer)),
        row("policy", "storm limit", limit(policy.storm_limit)),
        row("policy", "group limit", limit(policy.group_limit)),
        row("policy", "shed", policy.shed),
        row("policy", "host access", host_access),
        row("policy", "shortcut", shortcut),
        row("policy", "deliver", policy.deliver),
    ];
    if policy.dry_run {
        rows.push(row(
            "policy",
            "dry run",
            "on: frames are counted as decided, and none is changed or dropped",
        ));
    }
    rows
}

fn vlan(vlan: &VlanReport) -> Vec<String> {
    let parent = vlan.parent.as_deref().unwrap_or("no device on this host");
    let endpoints = match vlan.endpoints {
        1 => "1 endpoint".into(),
        number => format!("{number} endpoints"),
    };
    let access = if vlan.host_access {
        ", host access"
    } else {
        ""
    };
    let shortcut = match &vlan.shortcut_from {
        None => String::new(),
        Some(device) => {
            let others: Vec<_> = vlan.shortcut_to.iter().map(u16::to_string).collect();
            format!(", shortcut from {device} to {}", others.join(", "))
        }
    };
    let exempt = vlan.exempt.as_ref();
    let exempt = exempt.map_or_else(String::new, |exempt| format!("; {exempt}"));
    let description = format!("{parent}, {endpoints}{access}{shortcut}{exempt}");
    row("vlan", vlan.vlan.to_string(), description)
}

fn map(map: &MapFill) -> Vec<String> {
    let full = match map.left_out {
        0 => String::new(),
        number => format!(
            ": FULL, {number} entries found no room, and their frames take the kernel's own path; attach with a larger \
             --max-endpoints"
        ),
    };
    row(
        "map",
        map.map,
        format!("{} of {}{full}", map.entries, map.capacity),
    )
}

fn sources(status: &StatusReport) -> Rows {
    let sources = status.sources.iter().map(|source| {
        let age = source
            .age_seconds
            .map_or_else(String::new, |age| format!(", read {age} s ago"));
        row("source", source.source, format!("{}{age}", source.state))
    });
    sources.collect()
}

fn ignored(ignored: &Ignored) -> Rows {
    let Ignored {
        service_parents,
        stacked,
    } = *ignored;
    let rows = [
        (
            "802.1ad",
            format!("devices: {service_parents}"),
            service_parents,
        ),
        (
            "stacked",
            format!("devices on more than one tag: {stacked}"),
            stacked,
        ),
    ];
    let rows = rows.into_iter().filter(|(_, _, count)| *count > 0);
    rows.map(|(name, description, _)| row("ignored", name, description))
        .collect()
}

//! A trunk's status for people.

use super::{Ignored, Ingress, PolicyRow, Status};
use crate::output;

/// One trunk's status.
pub fn text(status: &Status) -> String {
    let trunk = &status.trunk;
    let by = match &status.holder {
        Some(holder) => format!("by process {holder}, heartbeat {}", status.heartbeat),
        None => format!(
            "by nobody: every frame is passed; `vlanfast attach {trunk}` takes over, `vlanfast \
             detach {trunk}` takes it off"
        ),
    };
    let mut rows = vec![];
    let mut row =
        |what: &str, which: String, how: String| rows.push(vec![what.to_owned(), which, how]);
    for hook in &status.hooks {
        let Ingress {
            reason,
            managed_offload,
            ..
        } = &status.ingress;
        let reason = match (hook.hook, managed_offload) {
            ("ingress", false) => reason.clone(),
            ("ingress", true) => {
                format!("{reason}; rx-vlan-offload is off for it, and on again after detaching")
            }
            _ => String::new(),
        };
        row(hook.hook, hook.kind.into(), reason);
    }
    let PolicyRow {
        steer,
        storm_limit,
        group_limit,
        shed,
        dry_run,
        host_access,
        shortcut,
        shortcut_refresh,
        deliver,
    } = status.policy;
    let limit = |limit| match limit {
        0 => "off".into(),
        limit => format!("{limit}/s for each VLAN"),
    };
    row(
        "policy",
        "steer".into(),
        if steer { "on" } else { "off" }.into(),
    );
    row("policy", "storm limit".into(), limit(storm_limit));
    row("policy", "group limit".into(), limit(group_limit));
    row("policy", "shed".into(), shed.into());
    let on_some = match host_access {
        true => "on, for the VLANs that say so",
        false => "off",
    };
    row("policy", "host access".into(), on_some.into());
    let shortcut = match shortcut_refresh {
        None => shortcut.into(),
        Some(0) => format!("{shortcut}, the router is asked once"),
        Some(seconds) => format!("{shortcut}, the router is asked again every {seconds} s"),
    };
    row("policy", "shortcut".into(), shortcut);
    row("policy", "deliver".into(), deliver.into());
    if dry_run {
        let how = "decides and counts, and changes no packet";
        row("policy", "dry run".into(), how.into());
    }
    for vlan in &status.vlans {
        let parent = vlan.parent.as_deref().unwrap_or("no device here");
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
        let without = vlan.without.as_ref();
        let without = without.map_or_else(String::new, |without| format!("; {without}"));
        row(
            "vlan",
            vlan.vlan.to_string(),
            format!("{parent}, {endpoints}{access}{shortcut}{without}"),
        );
    }
    for map in &status.maps {
        let full = match map.left_out {
            0 => String::new(),
            number => format!(
                ": FULL, {number} found no room and take the kernel's own path; attach with a larger \
                 --max-endpoints"
            ),
        };
        row(
            "map",
            map.map.into(),
            format!("{} of {}{full}", map.entries, map.capacity),
        );
    }
    for source in &status.sources {
        let age = source
            .age_seconds
            .map_or_else(String::new, |age| format!(", read {age} s ago"));
        row(
            "source",
            source.source.into(),
            format!("{}{age}", source.state),
        );
    }
    let Ignored {
        service_parents,
        stacked,
    } = status.ignored;
    if service_parents > 0 {
        row(
            "ignored",
            "802.1ad".into(),
            format!("devices: {service_parents}"),
        );
    }
    if stacked > 0 {
        row(
            "ignored",
            "stacked".into(),
            format!("devices on more than one tag: {stacked}"),
        );
    }
    let warnings: String = status
        .warnings
        .iter()
        .map(|warning| format!("  warning: {warning}\n"))
        .collect();
    format!("{trunk}: attached, {by}\n{}{warnings}", output::list(&rows))
}

//! `vlanfast status`: what the kernel says is attached.

use serde::Serialize;
use vlanfast_common::IngressReason;

use super::attached;
use crate::{
    cli::StatusArgs,
    datapath::{
        check_kernel, choose,
        device::Trunk,
        hooks::{self, HOOKS, Kind},
        netlink::Netlink,
        pins::Pins,
        tables,
    },
    output,
};

/// The shape of `status --json`.
#[derive(Serialize)]
struct Status {
    trunk: String,
    ifindex: u32,
    hooks: Vec<Hook>,
    ingress: Ingress,
    /// The process that is attached and will detach when it ends.
    pid: Option<i32>,
    vlans: Vec<Vlan>,
}

#[derive(Serialize)]
struct Hook {
    hook: &'static str,
    kind: &'static str,
    pinned: bool,
}

#[derive(Serialize)]
struct Ingress {
    chosen: &'static str,
    reason: String,
}

#[derive(Serialize)]
struct Vlan {
    vlan: u16,
    parent: String,
}

pub async fn run(args: &StatusArgs) -> anyhow::Result<()> {
    check_kernel()?;
    let netlink = Netlink::connect()?;
    let all = attached(args.trunk.as_deref()).await?;
    if all.is_empty() && !args.json {
        return output::text("nothing attached: run `vlanfast attach TRUNK`\n");
    }
    for pins in all {
        match args.json {
            true => output::json(&read(&netlink, &pins).await?)?,
            false => print(&netlink, &pins).await?,
        }
    }
    Ok(())
}

/// Prints one trunk's status.
pub async fn print(netlink: &Netlink, pins: &Pins) -> anyhow::Result<()> {
    let status = read(netlink, pins).await?;
    let by = match status.pid {
        Some(pid) => format!("by process {pid}"),
        None => format!("by nobody: `vlanfast detach {}` takes it off", pins.trunk),
    };
    let mut rows = vec![];
    for hook in &status.hooks {
        let reason = match hook.hook {
            "ingress" => status.ingress.reason.as_str(),
            _ => "",
        };
        rows.push([hook.hook, hook.kind, reason].map(str::to_owned).to_vec());
    }
    for vlan in &status.vlans {
        rows.push(vec![
            "vlan".into(),
            vlan.vlan.to_string(),
            vlan.parent.clone(),
        ]);
    }
    output::text(&format!(
        "{}: attached, {by}\n{}",
        pins.trunk,
        output::list(&rows)
    ))
}

async fn read(netlink: &Netlink, pins: &Pins) -> anyhow::Result<Status> {
    let trunk = Trunk::find(netlink, &pins.trunk).await?;
    let mut attached = vec![];
    let mut chosen = "none";
    for hook in HOOKS {
        let Some(kind) = hooks::kind(netlink, &trunk, pins, hook).await? else {
            continue;
        };
        let hook = hooks::name(hook);
        if hook == "ingress" {
            chosen = match kind {
                Kind::XdpNative | Kind::XdpGeneric => "xdp",
                Kind::Tcx | Kind::Clsact => "tc",
            };
        }
        attached.push(Hook {
            hook,
            kind: kind.as_str(),
            pinned: true,
        });
    }
    let reason = match IngressReason::from_number(tables::settings(pins)?.ingress_reason) {
        Some(reason) => choose::explain(reason, trunk.kind.as_deref()),
        None => "for a reason that this version does not know".into(),
    };
    let vlans = netlink.vlan_devices(trunk.ifindex).await?;
    Ok(Status {
        trunk: trunk.name,
        ifindex: trunk.ifindex,
        hooks: attached,
        ingress: Ingress { chosen, reason },
        pid: pins.holder().and_then(|holder| holder.pid),
        vlans: vlans
            .into_iter()
            .map(|device| Vlan {
                vlan: device.vid.get(),
                parent: device.name,
            })
            .collect(),
    })
}

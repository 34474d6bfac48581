//! The checks that come before anything is attached, and the pins of the trunk.

use vlanfast_common::Shed;

use crate::{
    cli::AttachArgs,
    error::Error,
    hooks,
    hooks::{choose, device::Trunk, inspect::without_ours, locate},
    netlink::Netlink,
    output,
    pins::{Holder, Lock, Pins},
};

/// What attaching needs.
pub struct Prepared {
    pub pins: Pins,
    pub trunk: Trunk,
    pub choice: choose::Choice,
    /// Whether an earlier process has left programs attached, which are taken over.
    pub adopted: bool,
    pub _lock: Lock,
}

/// Makes all the checks that can fail before anything is changed, then locks the pins of the trunk.
pub async fn prepare(netlink: &Netlink, args: &AttachArgs) -> anyhow::Result<Prepared> {
    let Some(device) = locate::device(netlink, &args.trunk).await? else {
        let trunk = args.trunk.to_string();
        return Err(Error::NoSuchDevice { trunk }.into());
    };
    let name = device.name.to_string();
    let mut trunk = find(netlink, &device).await?;
    ensure_one_mac(&trunk, args)?;
    let mut ours = None;
    if let Some(mut found) = locate::pins_of(netlink, &device).await? {
        // If nobody holds the lock, the process was killed or ended with --on-exit keep. We take over.
        let lock = found.lock()?.map_err(|holder| taken(&name, holder))?;
        let owner = locate::owner(netlink, &found).await?;
        if owner.is_some_and(|owner| owner.ifindex == device.id.ifindex) {
            found.adopt(device.id, &device.name)?;
            ours = Some((found, lock));
        } else {
            // Nothing is attached by these pins: their device was removed, or a crash came before attaching.
            clear_up(netlink, &found).await?;
            trunk = find(netlink, &device).await?;
        }
    }
    let pins = ours.as_ref().map(|(pins, _)| pins);
    let elsewhere = hooks::pinned_elsewhere(netlink, &trunk, pins).await?;
    if !elsewhere.is_empty() {
        return Err(Error::PinnedElsewhere {
            trunk: name,
            programs: elsewhere.join("; "),
        }
        .into());
    }
    let without = match pins {
        Some(pins) => without_ours(&trunk, pins)?,
        None => trunk.clone(),
    };
    let choice = choose::choose(&without, request(args))?;
    let adopted = ours.is_some();
    let (pins, lock) = match ours {
        Some(ours) => ours,
        None => create(netlink, &device).await?,
    };
    Ok(Prepared {
        pins,
        trunk,
        choice,
        adopted,
        _lock: lock,
    })
}

/// Refuses `--shed mac` on a bond or team, which may receive frames for the MACs of its ports.
fn ensure_one_mac(trunk: &Trunk, args: &AttachArgs) -> Result<(), Error> {
    match trunk.kind.as_deref() {
        Some(kind @ ("bond" | "team")) if args.shed == Shed::Mac => Err(Error::TakesForPorts {
            trunk: trunk.name.to_string(),
            kind: kind.to_owned(),
        }),
        _ => Ok(()),
    }
}

/// The options that decide about the hook for ingress.
fn request(args: &AttachArgs) -> choose::IngressRequest {
    choose::IngressRequest {
        ingress: args.ingress,
        manage_offloads: args.manage_offloads,
        sheds: args.shed != Shed::Off && !args.dry_run,
    }
}

/// Creates pins for a device that has none. Pins that a removed device with the same name has left are cleared up
/// first.
async fn create(netlink: &Netlink, device: &locate::TrunkDevice) -> anyhow::Result<(Pins, Lock)> {
    for left in locate::left_behind(netlink, &device.name).await? {
        // A failure is only noted, because these pins are in nobody's way. A process that holds them clears them up
        // itself.
        if let Ok(Ok(_lock)) = left.lock()
            && let Err(error) = clear_up(netlink, &left).await
        {
            output::note(&format!("note: {error:#}"));
        }
    }
    let created = Pins::create(device.id, &device.name)?;
    Ok(created.map_err(|holder| taken(&device.name.to_string(), holder))?)
}

async fn find(netlink: &Netlink, device: &locate::TrunkDevice) -> anyhow::Result<Trunk> {
    let found = Trunk::of_index(netlink, device.id.ifindex).await?;
    let trunk = || device.name.to_string();
    found.ok_or_else(|| Error::NoSuchDevice { trunk: trunk() }.into())
}

/// Removes pins that are of no use any more. Files of others among them may stay.
async fn clear_up(netlink: &Netlink, pins: &Pins) -> anyhow::Result<()> {
    match hooks::remove(netlink, pins).await {
        Err(error) if matches!(error.downcast_ref(), Some(Error::NotOurs { .. })) => Ok(()),
        removed => removed,
    }
}

fn taken(trunk: &str, holder: Holder) -> Error {
    Error::AlreadyAttached {
        trunk: trunk.to_owned(),
        pid: holder.to_string(),
    }
}

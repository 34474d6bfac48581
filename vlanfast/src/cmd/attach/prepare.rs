//! What is asked, and may be refused, before anything is attached.

use crate::{
    cli::{AttachArgs, Shedding},
    error::Error,
    hooks,
    hooks::{choose, device::Trunk, trunks},
    netlink::Netlink,
    output,
    pins::{Holder, Lock, Pins},
};

/// What is needed to attach.
pub struct Prepared {
    pub pins: Pins,
    pub trunk: Trunk,
    pub choice: choose::Choice,
    /// Something of ours is attached already.
    pub adopted: bool,
    pub _lock: Lock,
}

/// Everything that can be refused without having changed anything.
pub async fn prepare(netlink: &Netlink, args: &AttachArgs) -> anyhow::Result<Prepared> {
    let Some(device) = trunks::device(netlink, &args.trunk).await? else {
        let trunk = args.trunk.to_string();
        return Err(Error::NoSuchDevice { trunk }.into());
    };
    let name = device.name.to_string();
    let mut trunk = find(netlink, &device).await?;
    has_one_mac(&trunk, args)?;
    let mut ours = None;
    if let Some(mut found) = trunks::of(netlink, &device).await? {
        // Its process was killed, or told to keep it: it is ours now.
        let lock = found.lock()?.map_err(|holder| taken(&name, holder))?;
        let owner = trunks::owner(netlink, &found).await?;
        if owner.is_some_and(|owner| owner.ifindex == device.id.ifindex) {
            found.adopt(device.id, &device.name)?;
            ours = Some((found, lock));
        } else {
            // Nothing is attached by it: its device is gone, or it never came so far.
            clear_up(netlink, &found).await?;
            trunk = find(netlink, &device).await?;
        }
    }
    let pins = ours.as_ref().map(|(pins, _)| pins);
    let unpinned = hooks::unpinned(netlink, &trunk, pins).await?;
    if !unpinned.is_empty() {
        return Err(Error::PinnedElsewhere {
            trunk: name,
            programs: unpinned.join("; "),
        }
        .into());
    }
    let without = match pins {
        Some(pins) => hooks::without_ours(&trunk, pins)?,
        None => trunk.clone(),
    };
    let choice = choose::choose(&without, wish(args))?;
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

/// Refuses to shed by MAC what a trunk may take by the MACs of its ports.
fn has_one_mac(trunk: &Trunk, args: &AttachArgs) -> Result<(), Error> {
    match trunk.kind.as_deref() {
        Some(kind @ ("bond" | "team")) if args.shed == Shedding::Mac => Err(Error::TakesForPorts {
            trunk: trunk.name.to_string(),
            kind: kind.to_owned(),
        }),
        _ => Ok(()),
    }
}

/// What decides about the hook for ingress.
fn wish(args: &AttachArgs) -> choose::IngressRequest {
    choose::IngressRequest {
        ingress: args.ingress,
        manage_offloads: args.manage_offloads,
        sheds: args.shed != Shedding::Off && !args.dry_run,
    }
}

/// Pins for a device that has none, once those are gone that others have left by its name.
async fn create(netlink: &Netlink, device: &trunks::Device) -> anyhow::Result<(Pins, Lock)> {
    for left in trunks::left(netlink, &device.name).await? {
        // It is in nobody's way; and whoever has it clears up after himself.
        if let Ok(Ok(_lock)) = left.lock()
            && let Err(error) = clear_up(netlink, &left).await
        {
            output::note(&format!("note: {error:#}"));
        }
    }
    let created = Pins::create(device.id, &device.name)?;
    Ok(created.map_err(|holder| taken(&device.name.to_string(), holder))?)
}

async fn find(netlink: &Netlink, device: &trunks::Device) -> anyhow::Result<Trunk> {
    let found = Trunk::of_index(netlink, device.id.ifindex).await?;
    let trunk = || device.name.to_string();
    found.ok_or_else(|| Error::NoSuchDevice { trunk: trunk() }.into())
}

/// Removes what has no use any more. What is not ours in it may stay.
async fn clear_up(netlink: &Netlink, pins: &Pins) -> anyhow::Result<()> {
    match hooks::remove(netlink, pins).await {
        Err(error) if matches!(error.downcast_ref(), Some(Error::NotOurs { .. })) => Ok(()),
        removed => removed,
    }
}

fn taken(trunk: &str, holder: Holder) -> Error {
    Error::AlreadyAttached {
        trunk: trunk.to_owned(),
        pid: holder
            .pid
            .map_or_else(|| "of another namespace".into(), |pid| pid.to_string()),
    }
}

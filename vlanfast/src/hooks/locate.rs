//! Finds the device that a name means, and the pins of a device. A trunk is a device of our network namespace, known by
//! its index; its name may change.

use std::io;

use anyhow::Context;

use crate::{
    error::Error,
    hooks::{
        bpf_syscall,
        device::Trunk,
        inspect::attach_kind,
        kind::{HOOKS, hook_name},
    },
    maps::tables,
    netlink::Netlink,
    pins::{Pins, SETTINGS, TrunkId, netns},
    state::{name::Name, snapshot::Ifindex},
};

/// A device of our network namespace.
#[derive(Clone, Debug)]
pub struct TrunkDevice {
    pub id: TrunkId,
    /// The name that the kernel uses.
    pub name: Name,
}

/// The device with a name or an alternative name.
pub async fn device(netlink: &Netlink, name: &Name) -> anyhow::Result<Option<TrunkDevice>> {
    let Some(found) = netlink.link(name).await? else {
        return Ok(None);
    };
    let id = TrunkId {
        netns: netns()?,
        ifindex: found.ifindex.0,
    };
    let name = found.name;
    Ok(Some(TrunkDevice { id, name }))
}

/// The current name of a device of our network namespace; `None` if there is none with that index.
async fn name_of(netlink: &Netlink, ifindex: u32) -> anyhow::Result<Option<Name>> {
    let found = netlink.link_of(Ifindex(ifindex)).await?;
    Ok(found.map(|device| device.name))
}

/// The pins that a name means: those of the device that has the name; otherwise those of a device that had it, so that
/// they can be cleared up after it was removed.
pub async fn find(netlink: &Netlink, name: &Name) -> anyhow::Result<Option<Pins>> {
    let device = device(netlink, name).await?;
    if let Some(device) = &device
        && let Some(pins) = pins_of(netlink, device).await?
    {
        return Ok(Some(pins));
    }
    for (mut pins, current) in last_called(netlink, name).await? {
        match current {
            // The device was renamed, and another one has the name now. The name means that one.
            Some(_) if device.is_some() => continue,
            Some(current) => pins.trunk = current,
            None => {}
        }
        return Ok(Some(pins));
    }
    Ok(None)
}

/// The pins of a device.
pub async fn pins_of(netlink: &Netlink, device: &TrunkDevice) -> anyhow::Result<Option<Pins>> {
    let found = Pins::find(
        |entry| entry.id.is_none_or(|id| id == device.id),
        |entry| entry.id.is_some() || entry.name == device.name,
    )?;
    let (ours, others): (Vec<_>, Vec<_>) = found
        .into_iter()
        .partition(|pins| pins.id == Some(device.id));
    if let Some(mut pins) = ours.into_iter().next() {
        pins.trunk = device.name.clone();
        return Ok(Some(pins));
    }
    for mut pins in others {
        if current_name(netlink, &pins).await?.as_ref() == Some(&device.name) {
            pins.trunk = device.name.clone();
            return Ok(Some(pins));
        }
    }
    Ok(None)
}

/// The pins of every trunk of our network namespace, sorted by name.
pub async fn all(netlink: &Netlink) -> anyhow::Result<Vec<Pins>> {
    let netns = netns()?;
    let mut all = vec![];
    for mut pins in Pins::find(
        |entry| entry.id.is_none_or(|id| id.netns == netns),
        |entry| entry.id.is_some(),
    )? {
        let current = current_name(netlink, &pins).await?;
        if pins.id.is_none() && current.is_none() && !is_abandoned(&pins)? {
            continue;
        }
        pins.trunk = current.unwrap_or(pins.trunk);
        all.push(pins);
    }
    all.sort_by(|one, other| one.trunk.cmp(&other.trunk));
    Ok(all)
}

/// The pins of removed devices that had a name last.
pub async fn left_behind(netlink: &Netlink, name: &Name) -> anyhow::Result<Vec<Pins>> {
    let named = last_called(netlink, name).await?.into_iter();
    let left = named.filter(|(_, current)| current.is_none());
    Ok(left.map(|(pins, _)| pins).collect())
}

/// The pins of devices that had a name when they were pinned or last renamed, each with the current name of its device;
/// `None` if the device or its network namespace is gone. Pins that may be in use in another network namespace are left
/// out.
async fn last_called(netlink: &Netlink, name: &Name) -> anyhow::Result<Vec<(Pins, Option<Name>)>> {
    let netns = netns()?;
    let mut found = vec![];
    for pins in Pins::find(|entry| entry.name == *name, |_| true)? {
        let current = current_name(netlink, &pins).await?;
        let is_here = current.is_some() || pins.id.is_some_and(|id| id.netns == netns);
        if is_here || is_abandoned(&pins)? {
            found.push((pins, current));
        }
    }
    Ok(found)
}

/// The current name of the device that pins belong to; `None` if it is gone or in another network namespace.
async fn current_name(netlink: &Netlink, pins: &Pins) -> anyhow::Result<Option<Name>> {
    match pins.id {
        Some(id) if id.netns == netns()? => name_of(netlink, id.ifindex).await,
        Some(_) => Ok(None),
        None => Ok(owner(netlink, pins).await?.map(|owner| owner.name)),
    }
}

/// Whether nothing is attached by pins, in any network namespace: no process holds them, and none of their links is on
/// a device. A clsact filter has no link, and its program does not say where it is, so pins with a program alone count
/// as in use.
fn is_abandoned(pins: &Pins) -> anyhow::Result<bool> {
    if pins.holder().is_some() {
        return Ok(false);
    }
    for hook in HOOKS {
        let is_abandoned = match bpf_syscall::link_device(&pins.link(hook)) {
            Ok(device) => device == Some(0),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                !pins.has(&pins.program(hook))?
            }
            Err(error) => {
                let name = hook_name(hook);
                let what = || {
                    format!(
                        "failed to read the link pinned for {name} of {}",
                        pins.trunk
                    )
                };
                return Err(error).with_context(what);
            }
        };
        if !is_abandoned {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The device that the pinned programs are attached to, as it is now; `None` if it is gone or in another network
/// namespace. The index alone does not say so, because another namespace may use the same one; what is attached to the
/// device does.
pub async fn owner(netlink: &Netlink, pins: &Pins) -> anyhow::Result<Option<Trunk>> {
    if let Some(id) = pins.id
        && id.netns != netns()?
    {
        return Ok(None);
    }
    if !pins.has(&pins.path(SETTINGS))? {
        return Ok(None);
    }
    let settings = tables::settings(pins)?;
    let trunk = match Trunk::of_index(netlink, settings.ifindex).await {
        Ok(Some(trunk)) => trunk,
        Ok(None) => return Ok(None),
        // Nothing of ours is attached to a device that can't be a trunk.
        Err(error) if is_no_trunk(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    for hook in HOOKS {
        if attach_kind(netlink, &trunk, pins, hook).await?.is_some() {
            return Ok(Some(trunk));
        }
    }
    Ok(None)
}

/// Whether an error says that a device can't be a trunk.
pub fn is_no_trunk(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref();
    matches!(
        error,
        Some(Error::NotATrunk { .. } | Error::VlanDevice { .. })
    )
}

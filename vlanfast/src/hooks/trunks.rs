//! Which trunk is meant, and which pins are its: a trunk is a device of our network namespace, whatever
//! anybody calls it.

use std::io;

use anyhow::Context;

use crate::{
    error::Error,
    hooks,
    hooks::{HOOKS, bpf, device::Trunk},
    maps::tables,
    netlink::Netlink,
    pins::{Entry, Pins, Root, SETTINGS, TrunkId, netns},
    state::{name::Name, snapshot::Ifindex},
};

/// A device of our namespace.
#[derive(Clone, Debug)]
pub struct Device {
    pub id: TrunkId,
    /// As the kernel calls it.
    pub name: Name,
}

/// The device of a name, be it an alternative one.
pub async fn device(netlink: &Netlink, name: &Name) -> anyhow::Result<Option<Device>> {
    let Some(found) = netlink.link(name).await? else {
        return Ok(None);
    };
    let id = TrunkId {
        netns: netns()?,
        ifindex: found.ifindex.0,
    };
    let name = found.name;
    Ok(Some(Device { id, name }))
}

/// How a device of our namespace is called by now; `None` if there is none of that index.
async fn called(netlink: &Netlink, ifindex: u32) -> anyhow::Result<Option<Name>> {
    let found = netlink.link_of(Ifindex(ifindex)).await?;
    Ok(found.map(|device| device.name))
}

/// The pins that a name means: those of the device that has it; or else those of one that had it and is gone,
/// to be cleared up.
pub async fn find(netlink: &Netlink, name: &Name) -> anyhow::Result<Option<Pins>> {
    let device = device(netlink, name).await?;
    if let Some(device) = &device
        && let Some(pins) = of(netlink, device).await?
    {
        return Ok(Some(pins));
    }
    for (mut pins, by_now) in called_last(netlink, name).await? {
        match by_now {
            // It was renamed; but if another device has the name by now, that is meant.
            Some(_) if device.is_some() => continue,
            Some(by_now) => pins.trunk = by_now,
            None => {}
        }
        return Ok(Some(pins));
    }
    Ok(None)
}

/// The pins of a device.
pub async fn of(netlink: &Netlink, device: &Device) -> anyhow::Result<Option<Pins>> {
    let found = pins(
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
        if by_now(netlink, &pins).await?.as_ref() == Some(&device.name) {
            pins.trunk = device.name.clone();
            return Ok(Some(pins));
        }
    }
    Ok(None)
}

/// The pins of every trunk of our namespace, in the order of their names.
pub async fn all(netlink: &Netlink) -> anyhow::Result<Vec<Pins>> {
    let netns = netns()?;
    let mut all = vec![];
    for mut pins in pins(
        |entry| entry.id.is_none_or(|id| id.netns == netns),
        |entry| entry.id.is_some(),
    )? {
        let by_now = by_now(netlink, &pins).await?;
        if pins.id.is_none() && by_now.is_none() && !is_left(&pins)? {
            continue;
        }
        pins.trunk = by_now.unwrap_or(pins.trunk);
        all.push(pins);
    }
    all.sort_by(|one, other| one.trunk.cmp(&other.trunk));
    Ok(all)
}

/// The pins that devices of a name have left when they went.
pub async fn left(netlink: &Netlink, name: &Name) -> anyhow::Result<Vec<Pins>> {
    let named = called_last(netlink, name).await?.into_iter();
    let left = named.filter(|(_, by_now)| by_now.is_none());
    Ok(left.map(|(pins, _)| pins).collect())
}

/// The pins of devices that had a name when somebody looked last, and how each is called by now; `None` if it is
/// gone, be it with its namespace. Those that may be attached in another namespace are not ours to touch.
async fn called_last(netlink: &Netlink, name: &Name) -> anyhow::Result<Vec<(Pins, Option<Name>)>> {
    let netns = netns()?;
    let mut found = vec![];
    for pins in pins(|entry| entry.name == *name, |_| true)? {
        let by_now = by_now(netlink, &pins).await?;
        let is_here = by_now.is_some() || pins.id.is_some_and(|id| id.netns == netns);
        if is_here || is_left(&pins)? {
            found.push((pins, by_now));
        }
    }
    Ok(found)
}

fn pins(
    which: impl Fn(&Entry) -> bool,
    is_meant: impl Fn(&Entry) -> bool,
) -> anyhow::Result<Vec<Pins>> {
    let root = Root::open()?;
    root.map_or_else(|| Ok(vec![]), |root| root.pins(which, is_meant))
}

/// How the device that pins are of is called by now; `None` if it is gone, or in another namespace.
async fn by_now(netlink: &Netlink, pins: &Pins) -> anyhow::Result<Option<Name>> {
    match pins.id {
        Some(id) if id.netns == netns()? => called(netlink, id.ifindex).await,
        Some(_) => Ok(None),
        None => Ok(owner(netlink, pins).await?.map(|owner| owner.name)),
    }
}

/// Whether nothing is attached by pins in whatever namespace: nobody holds them, and no link of theirs is on a
/// device. A filter has no link, and where it is can't be seen from its program.
fn is_left(pins: &Pins) -> anyhow::Result<bool> {
    if pins.holder().is_some() {
        return Ok(false);
    }
    for hook in HOOKS {
        let is_left = match bpf::link_device(&pins.link(hook)) {
            Ok(device) => device == Some(0),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                !pins.has(&pins.program(hook))?
            }
            Err(error) => {
                let name = hooks::name(hook);
                let what = || {
                    format!(
                        "failed to read the link pinned for {name} of {}",
                        pins.trunk
                    )
                };
                return Err(error).with_context(what);
            }
        };
        if !is_left {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The device that what is pinned is attached to, as it is today; `None` if it is gone, or in another
/// namespace. An index says that only together with its namespace; what the device shows does.
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
        // Nothing of ours is on a device that can't be a trunk.
        Err(error) if is_no_trunk(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    for hook in HOOKS {
        if hooks::kind(netlink, &trunk, pins, hook).await?.is_some() {
            return Ok(Some(trunk));
        }
    }
    Ok(None)
}

/// Whether a failure is that a device can't be a trunk.
pub fn is_no_trunk(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref();
    matches!(
        error,
        Some(Error::NotATrunk { .. } | Error::VlanDevice { .. })
    )
}

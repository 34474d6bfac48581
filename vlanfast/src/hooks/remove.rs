//! Off the hooks. The same for Ctrl-C, for `detach`, and for an `attach` that finds what it can't use.

use std::{fs, os::fd::AsFd};

use anyhow::Context;
use vlanfast_common::{Direction, Settings};

use crate::{
    hooks::{bpf, device::Trunk, name, offloads, own_filter, trunks::owner},
    maps::{load, tables},
    netlink::{Netlink, tc::FilterSlot},
    pins::{Pins, SETTINGS},
    state::{name::Name, snapshot::Ifindex},
};

/// Takes everything of ours off the trunk and removes the pins. Goes on where one step fails, so
/// that as little as possible is left, and reports the first failure.
pub async fn remove(netlink: &Netlink, pins: &Pins) -> anyhow::Result<()> {
    // A crash before the note was pinned left nothing attached. One that can't be read keeps everything: what was
    // noted would be lost with it.
    let settings = match pins.has(&pins.path(SETTINGS))? {
        true => tables::settings(pins)?,
        false => Settings::default(),
    };
    // By its index: the trunk may have been renamed, and another device have its name.
    let ifindex = match settings.ifindex {
        0 => pins.id.map(|id| id.ifindex),
        ifindex => Some(ifindex),
    };
    // IngressMode while both hooks show it: an index alone does not say that the device is this one.
    let keeps_tags = match settings.managed_offload {
        0 => Ok(None),
        _ => owner(netlink, pins).await,
    };
    let mut first = take_off(netlink, ifindex, pins, Direction::Rx).await;
    // XDP would miss the tags; and should this be the last that we do, egress still shows whose it is.
    first =
        first.and(keeps_tags.and_then(|device| device.map_or(Ok(()), |it| strip_tags(&it.name))));
    first = first.and(take_off(netlink, ifindex, pins, Direction::Tx).await);
    if let Some(ifindex) = ifindex
        && settings.made_clsact != 0
    {
        first = first.and(remove_clsact(netlink, Ifindex(ifindex)).await);
    }
    // What could not be taken off is known by its pins alone, and is for the next who tries.
    first?;
    pins.remove()
}

/// The same where somebody has removed the pins. Links have gone with them; filters go by the names that we gave
/// them, and the rest by what was noted.
pub async fn remove_unpinned(netlink: &Netlink, settings: &Settings) -> anyhow::Result<()> {
    let Some(trunk) = Trunk::of_index(netlink, settings.ifindex).await? else {
        return Ok(());
    };
    if settings.managed_offload != 0 {
        strip_tags(&trunk.name)?;
    }
    let ifindex = Ifindex(trunk.ifindex);
    for (hook, name) in [(Direction::Rx, load::RX), (Direction::Tx, load::TX)] {
        for filter in netlink.filters(ifindex, hook).await?.list {
            let program = filter.program.as_ref();
            if program.is_some_and(|program| program.name.as_bytes() == name.as_bytes()) {
                let place = FilterSlot {
                    ifindex,
                    hook,
                    priority: filter.priority,
                    handle: filter.handle,
                };
                netlink.remove_filter(place).await?;
            }
        }
    }
    match settings.made_clsact {
        0 => Ok(()),
        _ => remove_clsact(netlink, ifindex).await,
    }
}

/// Removes the clsact qdisc that we added, unless it holds somebody's filter. A device that is gone took it along;
/// and a crash may have come after the note, before the deed.
async fn remove_clsact(netlink: &Netlink, ifindex: Ifindex) -> anyhow::Result<()> {
    match netlink.has_clsact(ifindex).await? {
        true => netlink.remove_clsact_if_empty(ifindex).await,
        false => Ok(()),
    }
}

/// Turns `rx-vlan-offload` on again.
pub fn strip_tags(device: &Name) -> anyhow::Result<()> {
    offloads::set_strips_tags(device, true)
        .map(drop)
        .with_context(|| {
            format!(
                "failed to turn rx-vlan-offload of {device} on again; run `ethtool -K {device} rxvlan on`"
            )
        })
}

/// Takes what is ours off one hook, however it is attached.
pub async fn take_off(
    netlink: &Netlink,
    ifindex: Option<u32>,
    pins: &Pins,
    hook: Direction,
) -> anyhow::Result<()> {
    let link = remove_link(pins, hook);
    link.and(match ifindex {
        Some(ifindex) => remove_filter(netlink, ifindex, pins, hook).await,
        None => Ok(()),
    })
}

fn remove_link(pins: &Pins, hook: Direction) -> anyhow::Result<()> {
    let path = pins.link(hook);
    if !pins.has(&path)? {
        return Ok(());
    }
    let what = || format!("failed to detach the link at {}", name(hook));
    let detached = bpf::open(&path).and_then(|link| bpf::detach_link(link.as_fd()));
    match detached {
        // The device is gone, and the link with it.
        Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => Ok(()),
        result => result.with_context(what),
    }
    .and(fs::remove_file(&path).with_context(what))
}

async fn remove_filter(
    netlink: &Netlink,
    ifindex: u32,
    pins: &Pins,
    hook: Direction,
) -> anyhow::Result<()> {
    let Some(filter) = own_filter(netlink, ifindex, pins, hook).await? else {
        return Ok(());
    };
    netlink
        .remove_filter(filter.place)
        .await
        .with_context(|| format!("failed to remove the filter at {}", name(hook)))
}

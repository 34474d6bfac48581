//! Detaches the programs and removes the pins: after Ctrl-C, for `detach`, and for an `attach` that finds remains it
//! can't use.

use std::{fs, os::fd::AsFd};

use anyhow::Context;
use vlanfast_common::{Direction, Settings};

use crate::{
    hooks::{
        bpf_syscall, device::Trunk, inspect::own_filter, kind::hook_name, locate::owner,
        offloads::restore_offload,
    },
    maps::{load, tables},
    netlink::{Netlink, tc::FilterSlot},
    pins::{Pins, SETTINGS},
    state::snapshot::Ifindex,
};

/// Takes everything of ours off the trunk and removes the pins. If one step fails it goes on with the rest, so that as
/// little as possible is left, and returns the first error.
pub async fn remove(netlink: &Netlink, pins: &Pins) -> anyhow::Result<()> {
    // A crash before `SETTINGS` was pinned has left nothing attached. If `SETTINGS` can't be read, everything stays:
    // removing it would lose the record of what has to be undone.
    let settings = match pins.has(&pins.path(SETTINGS))? {
        true => tables::settings(pins)?,
        false => Settings::default(),
    };
    // The index is used because the trunk may have been renamed, and another device may have its name.
    let ifindex = match settings.ifindex {
        0 => pins.id.map(|id| id.ifindex),
        ifindex => Some(ifindex),
    };
    // The owner is looked up while both hooks are attached: an index alone does not say that this is the same device.
    let keeps_tags = match settings.managed_offload {
        0 => Ok(None),
        _ => owner(netlink, pins).await,
    };
    let mut first = take_off(netlink, ifindex, pins, Direction::Rx).await;
    // Not before ingress is detached, because XDP would miss the tags; and not after egress, because after a crash at
    // this point egress still shows which device it was.
    first = first
        .and(keeps_tags.and_then(|device| device.map_or(Ok(()), |it| restore_offload(&it.name))));
    first = first.and(take_off(netlink, ifindex, pins, Direction::Tx).await);
    if let Some(ifindex) = ifindex
        && settings.made_clsact != 0
    {
        first = first.and(remove_clsact(netlink, Ifindex(ifindex)).await);
    }
    // What could not be taken off is known by its pins alone. They stay, so that the next `detach` can try again.
    first?;
    pins.remove()
}

/// Takes everything of ours off the trunk after somebody has removed the pins. Links went with their pins; filters are
/// found by the names of their programs, and everything else by `SETTINGS`.
pub async fn remove_unpinned(netlink: &Netlink, settings: &Settings) -> anyhow::Result<()> {
    let Some(trunk) = Trunk::of_index(netlink, settings.ifindex).await? else {
        return Ok(());
    };
    if settings.managed_offload != 0 {
        restore_offload(&trunk.name)?;
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

/// Removes the clsact qdisc that we added, unless it holds a filter of somebody else. It may not exist: the device was
/// removed, or a crash came after it was recorded and before it was added.
async fn remove_clsact(netlink: &Netlink, ifindex: Ifindex) -> anyhow::Result<()> {
    match netlink.has_clsact(ifindex).await? {
        true => netlink.remove_clsact_if_empty(ifindex).await,
        false => Ok(()),
    }
}

/// Takes our program off one hook, whether it is attached by a link or by a filter.
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
    let what = || format!("failed to detach the link at {}", hook_name(hook));
    let detached = bpf_syscall::open(&path).and_then(|link| bpf_syscall::detach_link(link.as_fd()));
    match detached {
        // The device was removed, and the link with it.
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
        .with_context(|| format!("failed to remove the filter at {}", hook_name(hook)))
}

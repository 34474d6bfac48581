//! Off the hooks. The same for Ctrl-C, for `detach`, and for an `attach` that finds what it can't use.

use std::fs;

use anyhow::Context;
use aya::programs::{
    Link,
    tc::{SchedClassifierLink, TcHandle},
};
use vlanfast_common::Direction;

use super::{filter, name, owner, tc_type};
use crate::datapath::{ethtool, kernel, netlink::Netlink, pins::Pins, tables};

/// Takes everything of ours off the trunk and removes the pins. Goes on where one step fails, so
/// that as little as possible is left, and reports the first failure.
pub async fn remove(netlink: &Netlink, pins: &Pins) -> anyhow::Result<()> {
    // A crash before the note was pinned left nothing attached, and one that can't be read is no
    // licence to remove a qdisc that may be someone else's: empty, it costs nothing.
    let settings = tables::settings(pins).unwrap_or_default();
    // By its index: the trunk may have been renamed, and another device have its name.
    let ifindex = match settings.ifindex {
        0 => netlink
            .link(&pins.trunk)
            .await?
            .map(|link| link.header.index),
        ifindex => Some(ifindex),
    };
    // Asked while both hooks show it: an index alone does not say that the device is this one.
    let keeps_tags = match settings.managed_offload {
        0 => Ok(None),
        _ => owner(netlink, pins).await,
    };
    let mut first = take_off(netlink, ifindex, pins, Direction::Rx).await;
    // XDP would miss the tags; and should this be the last that we do, egress still shows whose it is.
    first = first.and(keeps_tags.and_then(|device| device.map_or(Ok(()), |it| strip_tags(&it))));
    first = first.and(take_off(netlink, ifindex, pins, Direction::Tx).await);
    if let Some(ifindex) = ifindex
        && settings.made_clsact != 0
        // A device that is gone took it along; and a crash may have come after the note, before the deed.
        && netlink.has_clsact(ifindex).await?
    {
        first = first.and(netlink.remove_clsact_if_empty(ifindex).await);
    }
    first.and(pins.remove())
}

/// Turns `rx-vlan-offload` on again.
pub fn strip_tags(device: &str) -> anyhow::Result<()> {
    ethtool::set_strips_tags(device, true)
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
    if !path.exists() {
        return Ok(());
    }
    let what = || format!("failed to detach the link at {}", name(hook));
    match kernel::detach_link(&path) {
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
    let Some(device) = netlink.name(ifindex).await? else {
        return Ok(());
    };
    let Some(filter) = filter(netlink, ifindex, pins, hook).await? else {
        return Ok(());
    };
    let handle = TcHandle::from(filter.handle);
    SchedClassifierLink::attached(&device, tc_type(hook), filter.priority, handle, None)?
        .detach()
        .with_context(|| format!("failed to remove the filter at {}", name(hook)))
}

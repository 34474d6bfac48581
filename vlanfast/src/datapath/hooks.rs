//! What is attached to the trunk's hooks. Whatever is attached is pinned, so that whoever comes later
//! can read it, replace it and take it off.

mod attach;
mod parents;
mod remove;

use std::path::Path;

use anyhow::Context;
use aya::programs::{
    ProgramInfo, TcAttachType,
    links::{FdLink, LinkInfo, LinkType, PinnedLink},
};
use vlanfast_common::{Direction, IngressReason};

use super::{
    device::Trunk,
    kernel,
    netlink::{Filter, Netlink},
    pins::{self, Pins},
    tables,
};
use crate::state::published::Hook;

pub use attach::{attach, prepare};
pub use parents::Parents;
pub use remove::remove;

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Tcx,
    Clsact,
    XdpNative,
    XdpGeneric,
}

impl Kind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
            Self::XdpNative => "xdp-native",
            Self::XdpGeneric => "xdp-generic",
        }
    }
}

pub const HOOKS: [Direction; 2] = [Direction::Rx, Direction::Tx];

/// The hook's name.
pub const fn name(hook: Direction) -> &'static str {
    match hook {
        Direction::Rx => "ingress",
        Direction::Tx => "egress",
    }
}

const fn tc_type(hook: Direction) -> TcAttachType {
    match hook {
        Direction::Rx => TcAttachType::Ingress,
        Direction::Tx => TcAttachType::Egress,
    }
}

/// How a hook of this very device is attached according to the kernel; `None` where nothing of ours
/// is. The link that is pinned may have died with a device that had the name before.
pub async fn kind(
    netlink: &Netlink,
    trunk: &Trunk,
    pins: &Pins,
    hook: Direction,
) -> anyhow::Result<Option<Kind>> {
    let Some(link) = link(pins, hook)? else {
        let filter = filter(netlink, trunk.ifindex, pins, hook).await?;
        return Ok(filter.map(|_| Kind::Clsact));
    };
    let id = link.program_id();
    Ok(match link.link_type()? {
        LinkType::Xdp => match &trunk.xdp {
            Some(xdp) if xdp.program_id != id => None,
            Some(xdp) if xdp.generic => Some(Kind::XdpGeneric),
            xdp => xdp.as_ref().map(|_| Kind::XdpNative),
        },
        _ => {
            let programs = kernel::tcx_programs(trunk.ifindex, hook)
                .with_context(|| format!("failed to list the tcx programs of {}", trunk.name))?;
            programs.contains(&id).then_some(Kind::Tcx)
        }
    })
}

/// The hooks that are attached, and how each is.
pub async fn attached(netlink: &Netlink, pins: &Pins) -> anyhow::Result<Vec<Hook>> {
    // Asked anew: what is at the XDP hook may have come with us.
    let trunk = Trunk::find(netlink, &pins.trunk).await?;
    let reason = IngressReason::from_number(tables::settings(pins)?.ingress_reason);
    let mut attached = vec![];
    for hook in HOOKS {
        if let Some(kind) = kind(netlink, &trunk, pins, hook).await? {
            attached.push(Hook {
                hook: name(hook),
                mode: kind.as_str(),
                reason: match hook {
                    Direction::Rx => reason.map_or("unknown", IngressReason::name),
                    Direction::Tx => "",
                },
                attached: true,
                preceded_by: vec![],
            });
        }
    }
    Ok(attached)
}

/// The trunk as it would be without us: what is at its XDP hook then is someone else's, and the offload
/// that we turned off is on.
pub fn without_ours(trunk: &Trunk, pins: &Pins) -> anyhow::Result<Trunk> {
    let ours = link(pins, Direction::Rx)?.map(|link| link.program_id());
    let managed = tables::settings(pins).is_ok_and(|settings| settings.managed_offload != 0);
    let mut trunk = trunk.clone();
    trunk.xdp = trunk.xdp.filter(|xdp| Some(xdp.program_id) != ours);
    trunk.strips_tags |= managed;
    Ok(trunk)
}

/// The pins of a trunk: those of this very device, whatever name they are under; or else those under its
/// name, to be cleared up, unless they are another device's that is there.
pub async fn find(netlink: &Netlink, name: &str) -> anyhow::Result<Option<Pins>> {
    let named = Pins::of(name);
    if netlink.link(name).await?.is_none() {
        return Ok(Some(named).filter(Pins::exist));
    }
    let owner_of_named = owner(netlink, &named).await?;
    if owner_of_named.as_deref() == Some(name) {
        return Ok(Some(named));
    }
    for pins in Pins::all()? {
        if owner(netlink, &pins).await?.as_deref() == Some(name) {
            return Ok(Some(pins));
        }
    }
    Ok(Some(named).filter(|named| named.exist() && owner_of_named.is_none()))
}

/// The device that what is pinned is attached to, by its name of today; `None` if it is gone, or in
/// another namespace. An index says that only together with its namespace; what the device shows does.
pub async fn owner(netlink: &Netlink, pins: &Pins) -> anyhow::Result<Option<String>> {
    let Ok(settings) = tables::settings(pins) else {
        return Ok(None);
    };
    let Some(name) = netlink.name(settings.ifindex).await? else {
        return Ok(None);
    };
    // Nothing of ours is on a device that can't be a trunk.
    let Ok(trunk) = Trunk::find(netlink, &name).await else {
        return Ok(None);
    };
    for hook in HOOKS {
        if kind(netlink, &trunk, pins, hook).await?.is_some() {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// Frees a name that another device had: the pins under it follow that device, and are removed if it is
/// gone.
pub async fn make_way(netlink: &Netlink, name: &str) -> anyhow::Result<()> {
    let mut pins = Pins::of(name);
    while pins.exist() {
        match owner(netlink, &pins).await? {
            // What was under its name has this one now, and is next.
            Some(owner) if owner != name => pins.rename(&owner)?,
            _ => remove(netlink, &pins).await?,
        }
        pins = Pins::of(name);
    }
    Ok(())
}

/// What is pinned as the link of a hook.
fn link(pins: &Pins, hook: Direction) -> anyhow::Result<Option<LinkInfo>> {
    let path = pins.link(hook);
    if !path.exists() {
        return Ok(None);
    }
    let read = || FdLink::from(PinnedLink::from_pin(path)?).info();
    read()
        .map(Some)
        .with_context(|| format!("failed to read the link pinned for {}", name(hook)))
}

/// Our filter at a clsact hook: one whose program is pinned for it, or was about to be.
async fn filter(
    netlink: &Netlink,
    ifindex: u32,
    pins: &Pins,
    hook: Direction,
) -> anyhow::Result<Option<Filter>> {
    let path = pins.program(hook);
    let ours = [program_id(&pins::next(&path))?, program_id(&path)?];
    if ours == [None, None] {
        return Ok(None);
    }
    let filters = netlink.bpf_filters(ifindex, hook).await?;
    Ok(filters
        .into_iter()
        .find(|filter| ours.contains(&Some(filter.program_id))))
}

/// The id of a pinned program.
fn program_id(path: &Path) -> anyhow::Result<Option<u32>> {
    if !path.exists() {
        return Ok(None);
    }
    let info = ProgramInfo::from_pin(path)
        .with_context(|| format!("failed to read program {}", path.display()))?;
    Ok(Some(info.id()))
}

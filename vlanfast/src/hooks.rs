//! What is attached to the trunk's hooks. Whatever is attached is pinned, so that whoever comes later
//! can read it, replace it and take it off.

mod attach;
pub mod bpf;
pub mod choose;
mod clsact;
pub mod device;
mod kernel;
pub mod offloads;
mod parents;
mod remove;
mod repairs;
pub mod trunks;
mod unpinned;
mod watch;

use std::path::Path;

use anyhow::{Context, ensure};
pub use attach::{Done, attach, prepare};
use aya::programs::{
    ProgramInfo,
    links::{FdLink, LinkInfo, LinkType, PinnedLink},
};
pub use kernel::check as check_kernel;
pub use parents::Parents;
pub use remove::{remove, remove_unpinned};
pub use unpinned::{programs, unpinned};
use vlanfast_common::Direction;
pub use watch::Watch;

use crate::{
    hooks::device::Trunk,
    maps::tables,
    netlink::{
        Netlink,
        tc::{Filter, FilterSlot},
    },
    pins,
    pins::Pins,
    state::snapshot::Ifindex,
};

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Tcx,
    Clsact,
    XdpNative,
    XdpGeneric,
}

impl Kind {
    pub const fn is_xdp(self) -> bool {
        matches!(self, Self::XdpNative | Self::XdpGeneric)
    }

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

/// What is at a hook of this very device, according to the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// How our program is attached; `None` where it is not. The link that is pinned may have died with a
    /// device that had the name before, or been taken off by somebody.
    pub kind: Option<Kind>,
    /// What runs before ours, in words.
    pub before: Vec<String>,
}

/// Looks at a hook.
pub async fn look(
    netlink: &Netlink,
    trunk: &Trunk,
    pins: &Pins,
    hook: Direction,
) -> anyhow::Result<Seen> {
    let mut seen = match link(pins, hook)? {
        Some(link) if link.link_type()? == LinkType::Xdp => return Ok(at_xdp(trunk, &link)),
        Some(link) => at_tcx(trunk, hook, link.program_id())?,
        None => at_clsact(netlink, trunk, pins, hook).await?,
    };
    // XDP comes before TC; and a program of ours there would be this hook's.
    if let (Direction::Rx, Some(xdp)) = (hook, &trunk.xdp) {
        seen.before.insert(0, xdp.describe());
    }
    Ok(seen)
}

fn at_xdp(trunk: &Trunk, link: &LinkInfo) -> Seen {
    let id = link.program_id();
    let ours = trunk.xdp.as_ref().filter(|xdp| xdp.program_id == id);
    let kind = ours.map(|xdp| match xdp.generic {
        true => Kind::XdpGeneric,
        false => Kind::XdpNative,
    });
    Seen {
        kind,
        before: vec![],
    }
}

fn at_tcx(trunk: &Trunk, hook: Direction, id: u32) -> anyhow::Result<Seen> {
    let programs = bpf::tcx_programs(trunk.ifindex, hook)
        .with_context(|| format!("failed to list the tcx programs of {}", trunk.name))?;
    let place = programs.iter().position(|program| *program == id);
    let before = programs.iter().take(place.unwrap_or(0));
    Ok(Seen {
        kind: place.map(|_| Kind::Tcx),
        before: before.map(|id| bpf::describe("tcx program", *id)).collect(),
    })
}

async fn at_clsact(
    netlink: &Netlink,
    trunk: &Trunk,
    pins: &Pins,
    hook: Direction,
) -> anyhow::Result<Seen> {
    let Some(ours) = own_filter(netlink, trunk.ifindex, pins, hook).await? else {
        return Ok(Seen::default());
    };
    Ok(Seen {
        kind: Some(Kind::Clsact),
        before: ours.before,
    })
}

/// How a hook of this very device is attached; `None` where nothing of ours is.
pub async fn kind(
    netlink: &Netlink,
    trunk: &Trunk,
    pins: &Pins,
    hook: Direction,
) -> anyhow::Result<Option<Kind>> {
    Ok(look(netlink, trunk, pins, hook).await?.kind)
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

/// What is pinned as the link of a hook.
fn link(pins: &Pins, hook: Direction) -> anyhow::Result<Option<LinkInfo>> {
    let path = pins.link(hook);
    if !pins.has(&path)? {
        return Ok(None);
    }
    let read = || FdLink::from(PinnedLink::from_pin(path)?).info();
    read()
        .map(Some)
        .with_context(|| format!("failed to read the link pinned for {}", name(hook)))
}

/// A filter of ours.
struct OwnFilter {
    program_id: u32,
    place: FilterSlot,
    /// The filters of others that run before it, in words.
    before: Vec<String>,
}

/// Our filter at a clsact hook: one whose program is pinned for it, or was about to be.
async fn own_filter(
    netlink: &Netlink,
    ifindex: u32,
    pins: &Pins,
    hook: Direction,
) -> anyhow::Result<Option<OwnFilter>> {
    let path = pins.program(hook);
    let ours = [
        program_id(pins, &pins::next(&path))?,
        program_id(pins, &path)?,
    ];
    if ours == [None, None] {
        return Ok(None);
    }
    let ifindex = Ifindex(ifindex);
    let filters = netlink.filters(ifindex, hook).await?;
    let mut before = vec![];
    for filter in &filters.list {
        match &filter.program {
            Some(program) if ours.contains(&Some(program.id)) => {
                let place = FilterSlot {
                    ifindex,
                    hook,
                    priority: filter.priority,
                    handle: filter.handle,
                };
                before.dedup();
                return Ok(Some(OwnFilter {
                    program_id: program.id,
                    place,
                    before,
                }));
            }
            // Other chains run where a filter of the first says so.
            // And a u32 filter has its hash tables beside it.
            _ if filter.chain == 0 => before.push(describe(filter)),
            _ => {}
        }
    }
    // One of those that can't be read may be ours.
    ensure!(
        !filters.incomplete,
        "a TC filter at {} can't be read, and may be ours",
        name(hook)
    );
    Ok(None)
}

/// A filter as `tc` would name it.
fn describe(filter: &Filter) -> String {
    let Filter { kind, priority, .. } = filter;
    match &filter.program {
        Some(program) => format!("{kind} filter '{}' (pref {priority})", program.name),
        None => format!("{kind} filter (pref {priority})"),
    }
}

/// The id of a pinned program.
fn program_id(pins: &Pins, path: &Path) -> anyhow::Result<Option<u32>> {
    if !pins.has(path)? {
        return Ok(None);
    }
    let info = ProgramInfo::from_pin(path)
        .with_context(|| format!("failed to read program {}", path.display()))?;
    Ok(Some(info.id()))
}

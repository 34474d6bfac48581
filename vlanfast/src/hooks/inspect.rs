//! Reads what is attached at a hook: our program, and the programs and filters of others that run before it.

use std::path::Path;

use anyhow::{Context, ensure};
use aya::programs::{
    ProgramInfo,
    links::{FdLink, LinkInfo, LinkType, PinnedLink},
};
use vlanfast_common::Direction;

use crate::{
    hooks::{
        bpf_syscall,
        device::Trunk,
        kind::{AttachKind, hook_name},
    },
    maps::tables,
    netlink::{
        Netlink,
        tc::{Filter, FilterSlot},
    },
    pins,
    pins::Pins,
    state::snapshot::Ifindex,
};

/// What the kernel says is attached at a hook of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// How our program is attached; `None` if it is not. A pinned link may exist all the same: its device was
    /// removed, or somebody detached the link.
    pub kind: Option<AttachKind>,
    /// The programs and filters of others that run before ours, each in words.
    pub preceded_by: Vec<String>,
}

/// Reads what is attached at a hook of this device.
pub async fn inspect(
    netlink: &Netlink,
    trunk: &Trunk,
    pins: &Pins,
    hook: Direction,
) -> anyhow::Result<Observed> {
    let mut observed = match link(pins, hook)? {
        Some(link) if link.link_type()? == LinkType::Xdp => return Ok(at_xdp(trunk, &link)),
        Some(link) => at_tcx(trunk, hook, link.program_id())?,
        None => at_clsact(netlink, trunk, pins, hook).await?,
    };
    // XDP runs before TC. The program there is not ours, or ingress would not be read by TC.
    if let (Direction::Rx, Some(xdp)) = (hook, &trunk.xdp) {
        observed.preceded_by.insert(0, xdp.describe());
    }
    Ok(observed)
}

fn at_xdp(trunk: &Trunk, link: &LinkInfo) -> Observed {
    let id = link.program_id();
    let ours = trunk.xdp.as_ref().filter(|xdp| xdp.program_id == id);
    let kind = ours.map(|xdp| match xdp.generic {
        true => AttachKind::XdpGeneric,
        false => AttachKind::XdpNative,
    });
    Observed {
        kind,
        preceded_by: vec![],
    }
}

fn at_tcx(trunk: &Trunk, hook: Direction, id: u32) -> anyhow::Result<Observed> {
    let programs = bpf_syscall::tcx_programs(trunk.ifindex, hook)
        .with_context(|| format!("failed to list the tcx programs of {}", trunk.name))?;
    let position = programs.iter().position(|program| *program == id);
    let before = programs.iter().take(position.unwrap_or(0));
    Ok(Observed {
        kind: position.map(|_| AttachKind::Tcx),
        preceded_by: before
            .map(|id| bpf_syscall::describe("tcx program", *id))
            .collect(),
    })
}

async fn at_clsact(
    netlink: &Netlink,
    trunk: &Trunk,
    pins: &Pins,
    hook: Direction,
) -> anyhow::Result<Observed> {
    let Some(ours) = own_filter(netlink, trunk.ifindex, pins, hook).await? else {
        return Ok(Observed::default());
    };
    Ok(Observed {
        kind: Some(AttachKind::Clsact),
        preceded_by: ours.preceded_by,
    })
}

/// How our program is attached at a hook of this device; `None` if it is not.
pub async fn attach_kind(
    netlink: &Netlink,
    trunk: &Trunk,
    pins: &Pins,
    hook: Direction,
) -> anyhow::Result<Option<AttachKind>> {
    Ok(inspect(netlink, trunk, pins, hook).await?.kind)
}

/// The trunk as it would be if vlanfast were not attached: without our XDP program, and with the offload on that
/// we turned off.
pub fn without_ours(trunk: &Trunk, pins: &Pins) -> anyhow::Result<Trunk> {
    let ours = link(pins, Direction::Rx)?.map(|link| link.program_id());
    let managed = tables::settings(pins).is_ok_and(|settings| settings.managed_offload != 0);
    let mut trunk = trunk.clone();
    trunk.xdp = trunk.xdp.filter(|xdp| Some(xdp.program_id) != ours);
    trunk.strips_tags |= managed;
    Ok(trunk)
}

/// The link that is pinned for a hook.
pub fn link(pins: &Pins, hook: Direction) -> anyhow::Result<Option<LinkInfo>> {
    let path = pins.link(hook);
    if !pins.has(&path)? {
        return Ok(None);
    }
    let read = || FdLink::from(PinnedLink::from_pin(path)?).info();
    read()
        .map(Some)
        .with_context(|| format!("failed to read the link pinned for {}", hook_name(hook)))
}

/// Our filter at a clsact hook.
pub struct OwnFilter {
    pub program_id: u32,
    pub place: FilterSlot,
    /// The filters of others that run before it, in words.
    pub preceded_by: Vec<String>,
}

/// Finds our filter at a clsact hook: the one whose program is pinned for that hook, under its final name or under
/// the name of its replacement.
pub async fn own_filter(
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
    let mut preceded_by = vec![];
    for filter in &filters.list {
        match &filter.program {
            Some(program) if ours.contains(&Some(program.id)) => {
                let place = FilterSlot {
                    ifindex,
                    hook,
                    priority: filter.priority,
                    handle: filter.handle,
                };
                // The kernel lists the hash tables of a u32 filter beside the filter.
                preceded_by.dedup();
                return Ok(Some(OwnFilter {
                    program_id: program.id,
                    place,
                    preceded_by,
                }));
            }
            // A filter of chain 0 may run other chains; their filters do not run by themselves.
            _ if filter.chain == 0 => preceded_by.push(describe(filter)),
            _ => {}
        }
    }
    // A filter that cannot be read may be ours.
    ensure!(
        !filters.incomplete,
        "a TC filter at {} can't be read and may be ours",
        hook_name(hook)
    );
    Ok(None)
}

/// A filter in the words of `tc`.
fn describe(filter: &Filter) -> String {
    let Filter { kind, priority, .. } = filter;
    match &filter.program {
        Some(program) => format!("{kind} filter '{}' (pref {priority})", program.name),
        None => format!("{kind} filter (pref {priority})"),
    }
}

/// The id of a pinned program.
pub fn program_id(pins: &Pins, path: &Path) -> anyhow::Result<Option<u32>> {
    if !pins.has(path)? {
        return Ok(None);
    }
    let info = ProgramInfo::from_pin(path)
        .with_context(|| format!("failed to read program {}", path.display()))?;
    Ok(Some(info.id()))
}

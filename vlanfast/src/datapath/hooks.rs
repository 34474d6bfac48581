//! Programs onto the trunk's hooks, and off again. Whatever is attached is pinned, so that whoever
//! comes later can read it and take it off.

use std::fs;

use anyhow::{Context, anyhow};
use aya::{
    Ebpf,
    maps::{Array, Map, MapData},
    programs::{
        LinkOrder, ProgramInfo, SchedClassifier, TcAttachType, XdpMode,
        links::{FdLink, Link, LinkType, PinnedLink},
        tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle},
    },
};
use vlanfast_common::{Direction, IngressReason, Settings};

use super::{
    choose::{Choice, Ingress},
    device::Trunk,
    kernel, load,
    netlink::Netlink,
    pins::{COUNTERS, Pins, SETTINGS},
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

/// Attaches both hooks. What it did before an error is pinned, and [`remove`] undoes it.
///
/// Gives what the user should know of how it went: that TC had to stand in for XDP, say.
pub async fn attach(
    netlink: &Netlink,
    trunk: &Trunk,
    choice: Choice,
    ebpf: &mut Ebpf,
    pins: &Pins,
) -> anyhow::Result<Vec<String>> {
    let mut notes = Vec::new();
    for name in [COUNTERS, SETTINGS] {
        let map = ebpf
            .map(name)
            .ok_or_else(|| anyhow!("the BPF object has no map {name}"))?;
        map.pin(pins.path(name))
            .with_context(|| format!("failed to pin map {name}"))?;
    }
    let made_clsact = !kernel::has_tcx() && !netlink.has_clsact(trunk.ifindex).await?;
    let mut settings = Settings {
        ingress_reason: choice.reason as u32,
        made_clsact: made_clsact.into(),
        ifindex: trunk.ifindex,
        ..Settings::default()
    };
    // Noted before it is done: a crash in between leaves a note too many, which harms nobody.
    load::set_settings(ebpf, settings)?;
    if made_clsact {
        tc::qdisc_add_clsact(&trunk.name)
            .with_context(|| format!("failed to add a clsact qdisc to {}", trunk.name))?;
        // qdisc_graft() stops the device's queues, for an ingress or clsact qdisc as well.
        notes.push(
            "this kernel has no tcx (Linux 6.6), and adding the clsact qdisc dropped what was sent \
             for a few milliseconds; removing it will too"
                .into(),
        );
    }
    attach_tc(ebpf, trunk, pins, Direction::Tx)?;

    let mode = match choice.ingress {
        Ingress::Tc => None,
        Ingress::XdpNative => Some(XdpMode::Driver),
        Ingress::XdpGeneric => Some(XdpMode::Skb),
    };
    let refused = match mode {
        None => None,
        Some(mode) => match attach_xdp(ebpf, trunk, pins, mode) {
            Ok(()) => return Ok(notes),
            Err(error) if choice.reason == IngressReason::Asked => return Err(error),
            Err(error) => Some(format!("{error:#}")),
        },
    };
    attach_tc(ebpf, trunk, pins, Direction::Rx)?;
    if let Some(refused) = refused {
        notes.push(format!("{refused}; using TC instead"));
        settings.ingress_reason = IngressReason::NoNativeXdp as u32;
        load::set_settings(ebpf, settings)?;
    }
    Ok(notes)
}

fn attach_xdp(ebpf: &mut Ebpf, trunk: &Trunk, pins: &Pins, mode: XdpMode) -> anyhow::Result<()> {
    let program = load::xdp(ebpf)?;
    let what = || match mode {
        XdpMode::Skb => format!("failed to attach generic XDP to {}", trunk.name),
        _ => format!(
            "the driver of {} refused native XDP; try --ingress tc",
            trunk.name
        ),
    };
    let id = program
        .attach_to_if_index(trunk.ifindex, mode)
        .with_context(what)?;
    // The kernel's way without links (before Linux 5.9) would leave nothing to pin.
    let link: FdLink = program.take_link(id)?.try_into().with_context(what)?;
    program
        .pin(pins.program(Direction::Rx))
        .context("failed to pin the XDP program")?;
    pin(link, pins, Direction::Rx)
}

fn attach_tc(ebpf: &mut Ebpf, trunk: &Trunk, pins: &Pins, hook: Direction) -> anyhow::Result<()> {
    let (name, attach_type) = match hook {
        Direction::Rx => (load::RX, TcAttachType::Ingress),
        Direction::Tx => (load::TX, TcAttachType::Egress),
    };
    let program: &mut SchedClassifier = load::tc(ebpf, name)?;
    program
        .pin(pins.program(hook))
        .with_context(|| format!("failed to pin program {name}"))?;
    let tcx = kernel::has_tcx();
    let options = match tcx {
        // First, so that what another program keeps to itself is counted all the same.
        true => TcAttachOptions::TcxOrder(LinkOrder::first()),
        false => TcAttachOptions::Netlink(NlOptions::default()),
    };
    let id = program
        .attach_with_options(&trunk.name, attach_type, options)
        .with_context(|| format!("failed to attach {name} to {}", trunk.name))?;
    let link = program.take_link(id)?;
    match tcx {
        true => pin(link.try_into()?, pins, hook),
        false => {
            // A filter stays until it is removed; letting go of the link would remove it now.
            std::mem::forget(link);
            Ok(())
        }
    }
}

fn pin(link: FdLink, pins: &Pins, hook: Direction) -> anyhow::Result<()> {
    link.pin(pins.link(hook))
        .map(drop)
        .with_context(|| format!("failed to pin the link at {}", name(hook)))
}

/// How a hook is attached according to the kernel; `None` where nothing of ours is.
pub async fn kind(
    netlink: &Netlink,
    trunk: &Trunk,
    pins: &Pins,
    hook: Direction,
) -> anyhow::Result<Option<Kind>> {
    if pins.link(hook).exists() {
        let link = FdLink::from(PinnedLink::from_pin(pins.link(hook))?);
        return Ok(Some(match link.info()?.link_type()? {
            LinkType::Xdp if trunk.xdp.as_ref().is_some_and(|xdp| xdp.generic) => Kind::XdpGeneric,
            LinkType::Xdp => Kind::XdpNative,
            _ => Kind::Tcx,
        }));
    }
    let Some(id) = program_id(pins, hook)? else {
        return Ok(None);
    };
    let filters = netlink.bpf_filters(trunk.ifindex, hook).await?;
    Ok(filters
        .iter()
        .any(|filter| filter.program_id == id)
        .then_some(Kind::Clsact))
}

/// The loader's note.
pub fn settings(pins: &Pins) -> anyhow::Result<Settings> {
    let map = MapData::from_pin(pins.path(SETTINGS)).context("failed to open SETTINGS")?;
    let map: Array<_, Settings> = Map::Array(map).try_into()?;
    map.get(&0, 0).context("failed to read SETTINGS")
}

/// Takes everything of ours off the trunk and removes the pins. Goes on where one step fails, so
/// that as little as possible is left, and reports the first failure.
pub async fn remove(netlink: &Netlink, pins: &Pins) -> anyhow::Result<()> {
    let ifindex = netlink
        .link(&pins.trunk)
        .await?
        .map(|link| link.header.index);
    let mut first = Ok(());
    for hook in HOOKS {
        first = first.and(remove_link(pins, hook));
        // A device that is gone took its filters along.
        if let Some(ifindex) = ifindex {
            first = first.and(remove_filter(netlink, ifindex, pins, hook).await);
        }
    }
    if let Some(ifindex) = ifindex
        && settings(pins).is_ok_and(|settings| settings.made_clsact != 0)
    {
        first = first.and(netlink.remove_clsact_if_empty(ifindex).await);
    }
    first.and(pins.remove())
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
    let Some(id) = program_id(pins, hook)? else {
        return Ok(());
    };
    let attach_type = match hook {
        Direction::Rx => TcAttachType::Ingress,
        Direction::Tx => TcAttachType::Egress,
    };
    for filter in netlink.bpf_filters(ifindex, hook).await? {
        if filter.program_id == id {
            let handle = TcHandle::from(filter.handle);
            SchedClassifierLink::attached(&pins.trunk, attach_type, filter.priority, handle, None)?
                .detach()
                .with_context(|| format!("failed to remove the filter at {}", name(hook)))?;
        }
    }
    Ok(())
}

/// The id of the program that is pinned for a hook.
fn program_id(pins: &Pins, hook: Direction) -> anyhow::Result<Option<u32>> {
    let path = pins.program(hook);
    if !path.exists() {
        return Ok(None);
    }
    let info = ProgramInfo::from_pin(path)
        .with_context(|| format!("failed to read the program pinned for {}", name(hook)))?;
    Ok(Some(info.id()))
}

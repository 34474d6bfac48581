//! Onto the hooks: in place of what is there of ours, so that no packet meets a hook without a program.

mod refused;

use std::io;

use anyhow::{Context, anyhow};
use aya::{
    Ebpf,
    programs::{
        LinkOrder, SchedClassifier, XdpMode,
        links::{FdLink, PinnedLink},
        tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle},
        xdp::XdpLink,
    },
};
use vlanfast_common::{Direction, IngressReason, LAYOUT, Settings};

use self::refused::{NoNativeXdp, Refused};
use super::{
    Kind, filter, kind, name, program_id,
    remove::{strip_tags, take_off},
    tc_type,
};
use crate::datapath::{
    choose::{Choice, Ingress},
    device::Trunk,
    ethtool, kernel, load,
    netlink::Netlink,
    pins::{self, MAPS, Pins},
    tables::{self, Maps},
};

/// Attaches both hooks, or replaces what is attached. What it did before an error is pinned, and
/// [`remove`](super::remove) undoes it; so does the next `attach` or `detach` after a crash.
///
/// Gives what the user should know of how it went: that TC had to stand in for XDP, say.
pub async fn attach(
    netlink: &Netlink,
    trunk: &Trunk,
    choice: Choice,
    ebpf: &mut Ebpf,
    maps: &mut Maps,
    pins: &Pins,
) -> anyhow::Result<Vec<String>> {
    let mut notes = Vec::new();
    let old = tables::settings(pins).unwrap_or_default();
    let choice = remembered(choice, &old);
    prepare(ebpf, choice)?;

    let tc = match kernel::has_tcx() {
        true => Kind::Tcx,
        false => Kind::Clsact,
    };
    let add_clsact = tc == Kind::Clsact && !netlink.has_clsact(trunk.ifindex).await?;
    // Noted before it is done: a crash in between leaves a note too many, which harms nobody.
    maps.note(|settings| {
        *settings = Settings {
            layout: LAYOUT,
            ifindex: trunk.ifindex,
            ingress_reason: choice.reason as u32,
            made_clsact: (add_clsact || old.made_clsact != 0).into(),
            managed_offload: (choice.keep_tags || old.managed_offload != 0).into(),
            ..*settings
        }
    })?;
    for name in MAPS {
        let map = ebpf
            .map(name)
            .ok_or_else(|| anyhow!("the BPF object has no map {name}"))?;
        let path = pins.path(name);
        pins::stage(&path, |next| map.pin(next))?;
        pins::commit(&path)?;
    }
    if add_clsact {
        tc::qdisc_add_clsact(&trunk.name)
            .with_context(|| format!("failed to add a clsact qdisc to {}", trunk.name))?;
        // qdisc_graft() stops the device's queues, for an ingress or clsact qdisc as well.
        notes.push(
            "this kernel has no tcx (Linux 6.6), and adding the clsact qdisc dropped what was sent \
             for a few milliseconds; removing it will too"
                .into(),
        );
    }

    let mut hooks = Hooks {
        netlink,
        trunk,
        ebpf,
        pins,
    };
    hooks.put(Direction::Tx, tc).await?;
    // After egress: a crash finds the device again by what is attached to it.
    let put = match keep_tags(trunk, choice) {
        Err(why) => Err(Refused::Offload(why)),
        Ok(note) => {
            let ingress = match choice.ingress {
                Ingress::Tc => tc,
                Ingress::XdpNative => Kind::XdpNative,
                Ingress::XdpGeneric => Kind::XdpGeneric,
            };
            let put = hooks.put(Direction::Rx, ingress).await;
            put.map(|()| notes.extend(note)).map_err(Refused::Program)
        }
    };
    let fell_back = match put {
        Err(refused) if choice.reason == IngressReason::Suitable && refused.is_the_drivers() => {
            hooks.put(Direction::Rx, tc).await?;
            maps.note(|settings| settings.ingress_reason = refused.reason() as u32)?;
            notes.push(refused.note(&trunk.name));
            true
        }
        Err(refused) => return Err(refused.error(&trunk.name)),
        Ok(()) => false,
    };
    if (fell_back || choice.ingress == Ingress::Tc) && maps.settings()?.managed_offload != 0 {
        match strip_tags(&trunk.name) {
            Ok(()) => maps.note(|settings| settings.managed_offload = 0)?,
            // TC does without; detaching tries again.
            Err(error) => notes.push(format!("{error:#}")),
        }
    }
    Ok(notes)
}

/// Turns `rx-vlan-offload` off where that was chosen. Gives what to say of it.
fn keep_tags(trunk: &Trunk, choice: Choice) -> io::Result<Option<String>> {
    let name = &trunk.name;
    if !choice.keep_tags || !ethtool::set_strips_tags(name, false)? {
        return Ok(None);
    }
    let peer = match trunk.kind.as_deref() {
        Some("veth") => "; its peer has to leave them there as well (txvlan off)",
        _ => "",
    };
    Ok(Some(format!(
        "turned rx-vlan-offload of {name} off, so that XDP sees the tags{peer}; detaching turns it on again"
    )))
}

/// Loads the programs that a choice needs. Before anything changes: those that the kernel refuses leave
/// the old ones at work.
pub fn prepare(ebpf: &mut Ebpf, choice: Choice) -> anyhow::Result<()> {
    load::tc(ebpf, load::TX)?;
    match choice.ingress {
        Ingress::Tc => load::tc(ebpf, load::RX).map(drop),
        Ingress::XdpNative | Ingress::XdpGeneric => load::xdp(ebpf).map(drop),
    }
}

/// What the driver refused when we attached is not tried again at a restart: it would cost ingress
/// its program for a moment, and on some NICs the link.
fn remembered(choice: Choice, old: &Settings) -> Choice {
    let refused = match IngressReason::from_number(old.ingress_reason) {
        Some(reason @ IngressReason::NoNativeXdp) => reason,
        Some(reason @ IngressReason::KeepsOffload) if choice.keep_tags => reason,
        _ => return choice,
    };
    match choice.reason {
        IngressReason::Suitable => Choice {
            ingress: Ingress::Tc,
            reason: refused,
            keep_tags: false,
        },
        _ => choice,
    }
}

/// What it takes to attach a program.
struct Hooks<'a> {
    netlink: &'a Netlink,
    trunk: &'a Trunk,
    ebpf: &'a mut Ebpf,
    pins: &'a Pins,
}

impl Hooks<'_> {
    /// Puts our program on a hook. What is attached there in another way goes first: XDP and TC must
    /// never both count what comes in.
    async fn put(&mut self, hook: Direction, wanted: Kind) -> anyhow::Result<()> {
        let found = kind(self.netlink, self.trunk, self.pins, hook).await?;
        let replace = found == Some(wanted);
        if !replace {
            take_off(self.netlink, Some(self.trunk.ifindex), self.pins, hook).await?;
        }
        match wanted {
            Kind::Tcx => self.tcx(hook, replace),
            Kind::Clsact => self.clsact(hook).await,
            Kind::XdpNative => self.xdp(XdpMode::Driver, replace),
            Kind::XdpGeneric => self.xdp(XdpMode::Skb, replace),
        }
    }

    fn xdp(&mut self, mode: XdpMode, replace: bool) -> anyhow::Result<()> {
        let (trunk, pins, hook) = (self.trunk, self.pins, Direction::Rx);
        let program = load::xdp(self.ebpf)?;
        pins::stage(&pins.program(hook), |next| program.pin(next))?;
        if replace {
            let link = XdpLink::try_from(pinned(pins, hook)?)?;
            program
                .attach_to_link(link)
                .with_context(|| failed_to_replace(trunk, hook))?;
        } else {
            let name = &trunk.name;
            let attached = program.attach_to_if_index(trunk.ifindex, mode);
            let id = match mode {
                XdpMode::Skb => {
                    attached.with_context(|| format!("failed to attach generic XDP to {name}"))
                }
                _ => attached.with_context(|| NoNativeXdp(name.clone())),
            }?;
            // The kernel's way without links (before Linux 5.9) would leave nothing to pin.
            let link = FdLink::try_from(program.take_link(id)?)
                .with_context(|| failed_to_attach(trunk, hook))?;
            pin(link, pins, hook)?;
        }
        pins::commit(&pins.program(hook))
    }

    fn tcx(&mut self, hook: Direction, replace: bool) -> anyhow::Result<()> {
        let (trunk, pins) = (self.trunk, self.pins);
        let program = tc_program(self.ebpf, hook)?;
        pins::stage(&pins.program(hook), |next| program.pin(next))?;
        if replace {
            let link = SchedClassifierLink::try_from(pinned(pins, hook)?)?;
            program
                .attach_to_link(link)
                .with_context(|| failed_to_replace(trunk, hook))?;
        } else {
            // First, so that what another program keeps to itself is counted all the same.
            let options = TcAttachOptions::TcxOrder(LinkOrder::first());
            let id = program
                .attach_with_options(&trunk.name, tc_type(hook), options)
                .with_context(|| failed_to_attach(trunk, hook))?;
            pin(program.take_link(id)?.try_into()?, pins, hook)?;
        }
        pins::commit(&pins.program(hook))
    }

    /// A filter is known by its program, so that program must be pinned at every moment, under one
    /// name or the other.
    async fn clsact(&mut self, hook: Direction) -> anyhow::Result<()> {
        let (trunk, pins) = (self.trunk, self.pins);
        let path = pins.program(hook);
        let old = filter(self.netlink, trunk.ifindex, pins, hook).await?;
        if let Some(old) = &old
            && program_id(&pins::next(&path))? == Some(old.program_id)
        {
            pins::commit(&path)?;
        }
        let program = tc_program(self.ebpf, hook)?;
        pins::stage(&path, |next| program.pin(next))?;
        let id = match old {
            // cls_bpf_change() swaps the program for one with the same priority and handle.
            Some(old) => {
                let handle = TcHandle::from(old.handle);
                let name = &trunk.name;
                let link =
                    SchedClassifierLink::attached(name, tc_type(hook), old.priority, handle, None)?;
                program
                    .attach_to_link(link)
                    .with_context(|| failed_to_replace(trunk, hook))?
            }
            None => {
                let options = TcAttachOptions::Netlink(NlOptions::default());
                program
                    .attach_with_options(&trunk.name, tc_type(hook), options)
                    .with_context(|| failed_to_attach(trunk, hook))?
            }
        };
        // A filter stays until it is removed; letting go of the link would remove it now.
        std::mem::forget(program.take_link(id)?);
        pins::commit(&path)
    }
}

fn tc_program(ebpf: &mut Ebpf, hook: Direction) -> anyhow::Result<&mut SchedClassifier> {
    load::tc(
        ebpf,
        match hook {
            Direction::Rx => load::RX,
            Direction::Tx => load::TX,
        },
    )
}

fn pinned(pins: &Pins, hook: Direction) -> anyhow::Result<FdLink> {
    let link = PinnedLink::from_pin(pins.link(hook));
    Ok(link
        .with_context(|| format!("failed to open the link at {}", name(hook)))?
        .into())
}

fn pin(link: FdLink, pins: &Pins, hook: Direction) -> anyhow::Result<()> {
    link.pin(pins.link(hook))
        .map(drop)
        .with_context(|| format!("failed to pin the link at {}", name(hook)))
}

fn failed_to_attach(trunk: &Trunk, hook: Direction) -> String {
    format!("failed to attach to {} of {}", name(hook), trunk.name)
}

fn failed_to_replace(trunk: &Trunk, hook: Direction) -> String {
    let (hook, trunk) = (name(hook), &trunk.name);
    format!(
        "failed to replace the program at {hook} of {trunk}; run `vlanfast detach {trunk}` first"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_driver_refused_is_not_tried_again_unless_asked_for() {
        let refused = |reason: IngressReason| Settings {
            ingress_reason: reason as u32,
            ..Settings::default()
        };
        let xdp = |reason, keep_tags| Choice {
            ingress: Ingress::XdpNative,
            reason,
            keep_tags,
        };
        use IngressReason::{Asked, KeepsOffload, NoNativeXdp, StripsTags, Suitable};
        for (old, keep_tags) in [
            (NoNativeXdp, false),
            (NoNativeXdp, true),
            (KeepsOffload, true),
        ] {
            let again = remembered(xdp(Suitable, keep_tags), &refused(old));
            assert_eq!(
                (again.ingress, again.reason, again.keep_tags),
                (Ingress::Tc, old, false)
            );
        }
        for (choice, old) in [
            (xdp(Asked, true), refused(NoNativeXdp)),
            (xdp(Asked, true), refused(KeepsOffload)),
            // Somebody has turned it off since, or allows it now.
            (xdp(Suitable, false), refused(KeepsOffload)),
            (xdp(Suitable, true), refused(StripsTags)),
            (xdp(Suitable, true), Settings::default()),
        ] {
            assert_eq!(remembered(choice, &old), choice);
        }
    }
}

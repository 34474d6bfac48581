//! Onto the hooks: in place of what is there of ours, so that no packet meets a hook without a program.

mod refused;

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
};

use anyhow::{Context, anyhow};
use aya::{Ebpf, programs::ProgramFd};
use vlanfast_common::{Direction, IngressReason, LAYOUT, Settings};

use crate::{
    hooks::{
        Kind,
        attach::refused::{NoNativeXdp, Refused},
        bpf,
        bpf::AttachPoint,
        choose::{Choice, Ingress},
        clsact::{add_clsact, lacks_clsact},
        device::Trunk,
        kind, name, offloads, own_filter, program_id,
        remove::{strip_tags, take_off},
    },
    maps::{load, tables, tables::Maps},
    netlink::Netlink,
    pins,
    pins::{MAPS, Pins},
    state::snapshot::Ifindex,
};

/// What was attached.
pub struct Done {
    /// How each hook was.
    pub hooks: [(Direction, Kind); 2],
    /// What the user should know of how it went: that TC had to stand in for XDP, say.
    pub notes: Vec<String>,
}

/// Attaches both hooks, or replaces what is attached. What it did before an error is pinned, and
/// [`remove`](crate::hooks::remove) undoes it; so does the next `attach` or `detach` after a crash. A hook that can't be
/// attached as it is wanted keeps what it had.
pub async fn attach(
    netlink: &Netlink,
    trunk: &Trunk,
    choice: Choice,
    ebpf: &mut Ebpf,
    maps: &mut Maps,
    pins: &Pins,
) -> anyhow::Result<Done> {
    let mut notes = Vec::new();
    let old = tables::settings(pins).unwrap_or_default();
    let choice = remembered(choice, &old);
    prepare(ebpf, choice)?;

    let tc = match bpf::has_tcx() {
        true => Kind::Tcx,
        false => Kind::Clsact,
    };
    let needs_clsact = tc == Kind::Clsact && lacks_clsact(netlink, trunk).await?;
    // Noted before it is done: a crash in between leaves a note too many, which harms nobody.
    maps.note(|settings| {
        *settings = Settings {
            layout: LAYOUT,
            ifindex: trunk.ifindex,
            ingress_reason: choice.reason as u32,
            made_clsact: (needs_clsact || old.made_clsact != 0).into(),
            managed_offload: (choice.keep_tags || old.managed_offload != 0).into(),
            ..*settings
        }
    })?;
    pin_maps(ebpf, pins)?;
    if needs_clsact {
        add_clsact(netlink, trunk).await?;
        // qdisc_graft() stops the device's queues, for an ingress or clsact qdisc as well.
        notes.push(
            "this kernel has no tcx (Linux 6.6), and adding the clsact qdisc dropped what was sent \
             for a few milliseconds; removing it will too"
                .into(),
        );
    }
    let hooks = Hooks {
        netlink,
        trunk,
        pins,
    };
    let egress = load::tc(ebpf, load::TX)?.fd()?.try_clone()?;
    hooks.put(Direction::Tx, tc, egress.as_fd()).await?;
    // After egress: a crash finds the device again by what is attached to it.
    let ingress = match hooks.ingress(ebpf, choice, tc, maps, &mut notes).await {
        Ok(ingress) => ingress,
        Err(error) => {
            // What was there before is there again, and so is what was noted of it.
            if old.ifindex == trunk.ifindex {
                take_back(trunk, &old, maps)?;
            }
            return Err(error);
        }
    };
    if ingress == tc && maps.settings()?.managed_offload != 0 {
        match strip_tags(&trunk.name) {
            Ok(()) => maps.note(|settings| settings.managed_offload = 0)?,
            // TC does without; detaching tries again.
            Err(error) => notes.push(format!("{error:#}")),
        }
    }
    let hooks = [(Direction::Rx, ingress), (Direction::Tx, tc)];
    Ok(Done { hooks, notes })
}

/// Undoes what a choice that came to nothing has changed beside the hooks.
fn take_back(trunk: &Trunk, old: &Settings, maps: &mut Maps) -> anyhow::Result<()> {
    if old.managed_offload == 0 && maps.settings()?.managed_offload != 0 {
        strip_tags(&trunk.name)?;
    }
    maps.note(|settings| {
        settings.managed_offload = old.managed_offload;
        settings.ingress_reason = old.ingress_reason;
    })
}

fn pin_maps(ebpf: &Ebpf, pins: &Pins) -> anyhow::Result<()> {
    for name in MAPS {
        let map = ebpf
            .map(name)
            .ok_or_else(|| anyhow!("the BPF object has no map {name}"))?;
        let path = pins.path(name);
        pins::stage(&path, |next| map.pin(next))?;
        pins::commit(&path)?;
    }
    Ok(())
}

/// Turns `rx-vlan-offload` off where that was chosen. Gives what to say of it.
fn keep_tags(trunk: &Trunk, choice: Choice) -> io::Result<Option<String>> {
    let name = &trunk.name;
    if !choice.keep_tags || !offloads::set_strips_tags(name, false)? {
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
    ingress_program(ebpf, choice).map(drop)
}

/// The program that a choice has for ingress, loaded.
fn ingress_program(ebpf: &mut Ebpf, choice: Choice) -> anyhow::Result<ProgramFd> {
    let fd = match choice.ingress {
        Ingress::Tc => load::tc(ebpf, load::RX)?.fd()?,
        Ingress::XdpNative | Ingress::XdpGeneric => load::xdp(ebpf)?.fd()?,
    };
    Ok(fd.try_clone()?)
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

/// Puts what is pinned for a hook back where somebody took it off.
pub async fn repair(
    netlink: &Netlink,
    trunk: &Trunk,
    pins: &Pins,
    maps: &mut Maps,
    (hook, wanted): (Direction, Kind),
) -> anyhow::Result<()> {
    let program = bpf::open(&pins.program(hook))
        .with_context(|| format!("failed to open the program pinned for {}", name(hook)))?;
    if wanted == Kind::Clsact && lacks_clsact(netlink, trunk).await? {
        maps.note(|settings| settings.made_clsact = 1)?;
        add_clsact(netlink, trunk).await?;
    }
    let hooks = Hooks {
        netlink,
        trunk,
        pins,
    };
    hooks.put(hook, wanted, program.as_fd()).await
}

/// What it takes to attach a program.
struct Hooks<'a> {
    netlink: &'a Netlink,
    trunk: &'a Trunk,
    pins: &'a Pins,
}

impl Hooks<'_> {
    /// Has ingress read as it was chosen, or by TC where only the driver is against that; how it is read.
    async fn ingress(
        &self,
        ebpf: &mut Ebpf,
        choice: Choice,
        tc: Kind,
        maps: &mut Maps,
        notes: &mut Vec<String>,
    ) -> anyhow::Result<Kind> {
        let wanted = match choice.ingress {
            Ingress::Tc => tc,
            Ingress::XdpNative => Kind::XdpNative,
            Ingress::XdpGeneric => Kind::XdpGeneric,
        };
        let program = ingress_program(ebpf, choice)?;
        let put = match keep_tags(self.trunk, choice) {
            Err(why) => Err(Refused::Offload(why)),
            Ok(note) => {
                let put = self.put(Direction::Rx, wanted, program.as_fd()).await;
                put.map(|()| notes.extend(note)).map_err(Refused::Program)
            }
        };
        let trunk = self.trunk.name.to_string();
        match put {
            Ok(()) => Ok(wanted),
            Err(refused)
                if choice.reason == IngressReason::Suitable && refused.is_the_drivers() =>
            {
                let program = load::tc(ebpf, load::RX)?.fd()?.try_clone()?;
                self.put(Direction::Rx, tc, program.as_fd()).await?;
                maps.note(|settings| settings.ingress_reason = refused.reason() as u32)?;
                notes.push(refused.note(&trunk));
                Ok(tc)
            }
            Err(refused) => Err(refused.error(&trunk)),
        }
    }

    /// Puts our program on a hook. What is attached there in another way goes first, because XDP and TC must
    /// never both count what comes in; and it comes back if the other way turns out to be none.
    async fn put(
        &self,
        hook: Direction,
        wanted: Kind,
        program: BorrowedFd<'_>,
    ) -> anyhow::Result<()> {
        let found = kind(self.netlink, self.trunk, self.pins, hook).await?;
        if found == Some(wanted) {
            return self.place(hook, wanted, true, program).await;
        }
        // A crash may have left it where it is not found; then there is no way back.
        let old = found.and_then(|_| bpf::open(&self.pins.program(hook)).ok());
        take_off(self.netlink, Some(self.trunk.ifindex), self.pins, hook).await?;
        let placed = self.place(hook, wanted, false, program).await;
        if let (Err(error), Some(found), Some(old)) = (&placed, found, old) {
            let back = self.place(hook, found, false, old.as_fd()).await;
            back.with_context(|| format!("{error:#}; and what was there could not be put back"))?;
        }
        placed
    }

    async fn place(
        &self,
        hook: Direction,
        wanted: Kind,
        replace: bool,
        program: BorrowedFd<'_>,
    ) -> anyhow::Result<()> {
        let point = match wanted {
            Kind::Tcx => AttachPoint::TcxFirst(hook),
            Kind::XdpNative => AttachPoint::XdpNative,
            Kind::XdpGeneric => AttachPoint::XdpGeneric,
            Kind::Clsact => return self.clsact(hook, program).await,
        };
        let linked = self.link(hook, point, replace, program);
        match linked {
            Err(error) if error.is::<NoNativeXdp>() => {
                let ifindex = Ifindex(self.trunk.ifindex);
                let why = self.netlink.why_not_xdp(ifindex, program).await;
                let refused = NoNativeXdp(self.trunk.name.to_string());
                Err(why.map_or(error, |why| anyhow!(why).context(refused)))
            }
            linked => linked,
        }
    }

    fn link(
        &self,
        hook: Direction,
        place: AttachPoint,
        replace: bool,
        program: BorrowedFd<'_>,
    ) -> anyhow::Result<()> {
        let (trunk, pins) = (self.trunk, self.pins);
        pins::stage(&pins.program(hook), |next| bpf::pin(&program, next))?;
        if replace {
            bpf::open(&pins.link(hook))
                .and_then(|link| bpf::update_link(link.as_fd(), program))
                .with_context(|| failed_to_replace(trunk, hook))?;
        } else {
            // A tcx program of ours comes first, so that what another keeps to itself is counted all the same.
            let link = bpf::create_link(program, trunk.ifindex, place);
            let link = match place {
                AttachPoint::XdpNative => {
                    link.with_context(|| NoNativeXdp(trunk.name.to_string()))?
                }
                AttachPoint::TcxFirst(_) | AttachPoint::TcxLast(_) | AttachPoint::XdpGeneric => {
                    link.with_context(|| failed_to_attach(trunk, hook))?
                }
            };
            bpf::pin(&link, &pins.link(hook))
                .with_context(|| format!("failed to pin the link at {}", name(hook)))?;
        }
        pins::commit(&pins.program(hook))
    }

    /// A filter is known by its program, so that program must be pinned at every moment, under one
    /// name or the other.
    async fn clsact(&self, hook: Direction, program: BorrowedFd<'_>) -> anyhow::Result<()> {
        let (trunk, pins) = (self.trunk, self.pins);
        let path = pins.program(hook);
        let old = own_filter(self.netlink, trunk.ifindex, pins, hook).await?;
        if let Some(old) = &old
            && program_id(pins, &pins::next(&path))? == Some(old.program_id)
        {
            pins::commit(&path)?;
        }
        pins::stage(&path, |next| bpf::pin(&program, next))?;
        let label = match hook {
            Direction::Rx => load::RX,
            Direction::Tx => load::TX,
        };
        match old {
            // cls_bpf_change() swaps the program for one with the same priority and handle.
            Some(old) => {
                let replaced = self.netlink.replace_filter(old.place, program, label).await;
                replaced.with_context(|| failed_to_replace(trunk, hook))?;
            }
            None => {
                let ifindex = Ifindex(trunk.ifindex);
                let added = self.netlink.add_filter(ifindex, hook, program, label).await;
                added.with_context(|| failed_to_attach(trunk, hook))?;
            }
        }
        pins::commit(&path)
    }
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
mod tests;

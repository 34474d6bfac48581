//! Attaches the programs. What a process before us has attached is replaced in place, so that no packet meets a hook
//! without a program.

use std::{io, os::fd::AsFd};

use anyhow::anyhow;
use aya::{Ebpf, programs::ProgramFd};
use vlanfast_common::{Direction, IngressReason, LAYOUT, Settings};

use crate::{
    hooks::{
        bpf_syscall,
        choose::{Choice, Ingress},
        clsact::{add_clsact, lacks_clsact},
        device::Trunk,
        kind::AttachKind,
        offloads,
        offloads::restore_offload,
        place::Placement,
        refused::Refused,
    },
    maps::{load, tables, tables::TableMaps},
    netlink::Netlink,
    pins,
    pins::{MAPS, Pins},
};

/// What was attached.
pub struct Done {
    /// How each hook is attached.
    pub hooks: [(Direction, AttachKind); 2],
    /// What the user should know, for example that TC was used because the driver refused XDP.
    pub notes: Vec<String>,
}

/// Attaches both hooks, or replaces what is attached there.
///
/// Everything it did before an error is pinned, so that [`remove`](crate::hooks::remove) or the next `attach` can undo
/// it; the same holds after a crash. A hook that can't be attached as wanted keeps the program that it had.
pub async fn attach(
    netlink: &Netlink,
    trunk: &Trunk,
    choice: Choice,
    ebpf: &mut Ebpf,
    maps: &mut TableMaps,
    pins: &Pins,
) -> anyhow::Result<Done> {
    let old = tables::settings(pins).unwrap_or_default();
    let choice = remembered(choice, &old);
    prepare(ebpf, choice)?;
    let mut attaching = Attaching {
        placement: Placement {
            netlink,
            trunk,
            pins,
        },
        choice,
        tc: match bpf_syscall::has_tcx() {
            true => AttachKind::Tcx,
            false => AttachKind::Clsact,
        },
        ebpf,
        maps,
        notes: vec![],
    };
    attaching.record_and_pin(&old).await?;
    attaching.egress().await?;
    // After egress: once a crash has happened, the device is found by what is attached to it.
    let ingress = match attaching.ingress().await {
        Ok(ingress) => ingress,
        Err(error) => {
            // The hook has its old program again, and `SETTINGS` has to say so.
            if old.ifindex == trunk.ifindex {
                attaching.take_back(&old)?;
            }
            return Err(error);
        }
    };
    attaching.restore_unneeded_offload(ingress)?;
    Ok(Done {
        hooks: [(Direction::Rx, ingress), (Direction::Tx, attaching.tc)],
        notes: attaching.notes,
    })
}

/// Loads the programs that a choice needs. This comes before any change: if the kernel rejects one, the programs that
/// are attached stay in place.
pub fn prepare(ebpf: &mut Ebpf, choice: Choice) -> anyhow::Result<()> {
    load::tc(ebpf, load::TX)?;
    ingress_program(ebpf, choice).map(drop)
}

/// Loads the ingress program of a choice.
fn ingress_program(ebpf: &mut Ebpf, choice: Choice) -> anyhow::Result<ProgramFd> {
    let fd = match choice.ingress {
        Ingress::Tc => load::tc(ebpf, load::RX)?.fd()?,
        Ingress::XdpNative | Ingress::XdpGeneric => load::xdp(ebpf)?.fd()?,
    };
    Ok(fd.try_clone()?)
}

/// Replaces a choice of XDP that the driver refused when we attached before. To try it again at each restart would
/// leave ingress without a program for a moment, and takes the link down on some NICs.
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

/// The state of an attach under way.
struct Attaching<'a> {
    placement: Placement<'a>,
    choice: Choice,
    /// How TC programs attach on this kernel.
    tc: AttachKind,
    ebpf: &'a mut Ebpf,
    maps: &'a mut TableMaps,
    notes: Vec<String>,
}

impl Attaching<'_> {
    /// Writes into `SETTINGS` what is about to be changed, pins the maps, and adds the clsact qdisc if one is needed.
    async fn record_and_pin(&mut self, old: &Settings) -> anyhow::Result<()> {
        let Placement {
            netlink,
            trunk,
            pins,
        } = self.placement;
        let choice = self.choice;
        let needs_clsact = self.tc == AttachKind::Clsact && lacks_clsact(netlink, trunk).await?;
        // This is written before it is done. A crash in between leaves a record of something that was not done,
        // which does no harm.
        self.maps.update_settings(|settings| {
            *settings = Settings {
                layout: LAYOUT,
                ifindex: trunk.ifindex,
                ingress_reason: choice.reason as u32,
                made_clsact: (needs_clsact || old.made_clsact != 0).into(),
                managed_offload: (choice.keep_tags || old.managed_offload != 0).into(),
                ..*settings
            }
        })?;
        pin_maps(self.ebpf, pins)?;
        if needs_clsact {
            add_clsact(netlink, trunk).await?;
            // qdisc_graft() stops the device's transmit queues for an ingress or clsact qdisc as well.
            self.notes.push(
                "this kernel has no tcx (Linux 6.6): adding the clsact qdisc dropped outgoing packets for a few \
                 milliseconds, and removing it will do so again"
                    .into(),
            );
        }
        Ok(())
    }

    async fn egress(&mut self) -> anyhow::Result<()> {
        let program = load::tc(self.ebpf, load::TX)?.fd()?.try_clone()?;
        let placement = self.placement;
        placement.put(Direction::Tx, self.tc, program.as_fd()).await
    }

    /// Attaches ingress as it was chosen. If only the driver stands against XDP and the choice was ours to make, TC
    /// is used instead. Returns how ingress is attached.
    async fn ingress(&mut self) -> anyhow::Result<AttachKind> {
        let (placement, choice) = (self.placement, self.choice);
        let wanted = match choice.ingress {
            Ingress::Tc => self.tc,
            Ingress::XdpNative => AttachKind::XdpNative,
            Ingress::XdpGeneric => AttachKind::XdpGeneric,
        };
        let program = ingress_program(self.ebpf, choice)?;
        let put = match keep_tags(placement.trunk, choice) {
            Err(why) => Err(Refused::Offload(why)),
            Ok(note) => {
                let put = placement.put(Direction::Rx, wanted, program.as_fd());
                let put = put.await.map_err(Refused::Program);
                put.map(|()| self.notes.extend(note))
            }
        };
        let trunk = placement.trunk.name.to_string();
        match put {
            Ok(()) => Ok(wanted),
            Err(refused)
                if choice.reason == IngressReason::Suitable && refused.is_the_drivers() =>
            {
                let program = load::tc(self.ebpf, load::RX)?.fd()?.try_clone()?;
                let put = placement.put(Direction::Rx, self.tc, program.as_fd());
                put.await?;
                let reason = refused.reason() as u32;
                self.maps
                    .update_settings(|settings| settings.ingress_reason = reason)?;
                self.notes.push(refused.note(&trunk));
                Ok(self.tc)
            }
            Err(refused) => Err(refused.error(&trunk)),
        }
    }

    /// Undoes what a choice that failed has changed beside the hooks.
    fn take_back(&mut self, old: &Settings) -> anyhow::Result<()> {
        if old.managed_offload == 0 && self.maps.settings()?.managed_offload != 0 {
            restore_offload(&self.placement.trunk.name)?;
        }
        self.maps.update_settings(|settings| {
            settings.managed_offload = old.managed_offload;
            settings.ingress_reason = old.ingress_reason;
        })
    }

    /// Turns `rx-vlan-offload` on again if ingress is read by TC, which does not need it off.
    fn restore_unneeded_offload(&mut self, ingress: AttachKind) -> anyhow::Result<()> {
        if ingress != self.tc || self.maps.settings()?.managed_offload == 0 {
            return Ok(());
        }
        match restore_offload(&self.placement.trunk.name) {
            Ok(()) => self
                .maps
                .update_settings(|settings| settings.managed_offload = 0),
            // TC works all the same, and detaching tries again.
            Err(error) => {
                self.notes.push(format!("{error:#}"));
                Ok(())
            }
        }
    }
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

/// Turns `rx-vlan-offload` off if the choice needs that. Returns the note for the user.
fn keep_tags(trunk: &Trunk, choice: Choice) -> io::Result<Option<String>> {
    let name = &trunk.name;
    if !choice.keep_tags || !offloads::set_strips_tags(name, false)? {
        return Ok(None);
    }
    let peer = match trunk.kind.as_deref() {
        Some("veth") => {
            "; its peer must leave them in the frame as well (`ethtool -K PEER txvlan off`)"
        }
        _ => "",
    };
    Ok(Some(format!(
        "turned rx-vlan-offload of {name} off, so that XDP sees VLAN tags{peer}; detaching turns it on again"
    )))
}

#[cfg(test)]
mod tests;

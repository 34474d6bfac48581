//! Puts a program on a hook of the trunk, in place of whatever of ours is attached there.

use std::os::fd::{AsFd, BorrowedFd};

use anyhow::{Context, anyhow};
use vlanfast_common::Direction;

use crate::{
    hooks::{
        bpf_syscall,
        bpf_syscall::AttachPoint,
        device::Trunk,
        inspect::{attach_kind, own_filter, program_id},
        kind::{AttachKind, hook_name},
        refused::NoNativeXdp,
        remove::take_off,
    },
    maps::load,
    netlink::Netlink,
    pins,
    pins::Pins,
    state::snapshot::Ifindex,
};

/// The trunk whose hooks get programs, and where those are pinned.
#[derive(Clone, Copy)]
pub struct Placement<'a> {
    pub netlink: &'a Netlink,
    pub trunk: &'a Trunk,
    pub pins: &'a Pins,
}

impl Placement<'_> {
    /// Puts our program on a hook.
    ///
    /// A program of ours that is attached there in another way is taken off first, because XDP and TC must never
    /// both count what comes in. If the new way fails, the old program is attached again.
    pub async fn put(
        self,
        hook: Direction,
        wanted: AttachKind,
        program: BorrowedFd<'_>,
    ) -> anyhow::Result<()> {
        let found = attach_kind(self.netlink, self.trunk, self.pins, hook).await?;
        if found == Some(wanted) {
            return self.place(hook, wanted, true, program).await;
        }
        // After a crash the old program may not be pinned; then it cannot be attached again.
        let old = found.and_then(|_| bpf_syscall::open(&self.pins.program(hook)).ok());
        take_off(self.netlink, Some(self.trunk.ifindex), self.pins, hook).await?;
        let placed = self.place(hook, wanted, false, program).await;
        if let (Err(error), Some(found), Some(old)) = (&placed, found, old) {
            let back = self.place(hook, found, false, old.as_fd()).await;
            back.with_context(|| {
                format!("{error:#}; and the program that was attached before can't be put back")
            })?;
        }
        placed
    }

    async fn place(
        self,
        hook: Direction,
        wanted: AttachKind,
        replace: bool,
        program: BorrowedFd<'_>,
    ) -> anyhow::Result<()> {
        let point = match wanted {
            AttachKind::Tcx => AttachPoint::TcxFirst(hook),
            AttachKind::XdpNative => AttachPoint::XdpNative,
            AttachKind::XdpGeneric => AttachPoint::XdpGeneric,
            AttachKind::Clsact => return self.clsact(hook, program).await,
        };
        let linked = self.link(hook, point, replace, program);
        match linked {
            // BPF_LINK_CREATE gives an errno only; netlink gives the driver's own words.
            Err(error) if error.is::<NoNativeXdp>() => {
                let ifindex = Ifindex(self.trunk.ifindex);
                let why = self.netlink.xdp_refusal(ifindex, program).await;
                let refused = NoNativeXdp(self.trunk.name.to_string());
                Err(why.map_or(error, |why| anyhow!(why).context(refused)))
            }
            linked => linked,
        }
    }

    fn link(
        self,
        hook: Direction,
        point: AttachPoint,
        replace: bool,
        program: BorrowedFd<'_>,
    ) -> anyhow::Result<()> {
        let Self { trunk, pins, .. } = self;
        pins::stage(&pins.program(hook), |next| bpf_syscall::pin(&program, next))?;
        if replace {
            bpf_syscall::open(&pins.link(hook))
                .and_then(|link| bpf_syscall::update_link(link.as_fd(), program))
                .with_context(|| failed_to_replace(trunk, hook))?;
        } else {
            // Our tcx program goes first: one before it could drop or redirect frames that would not be counted.
            let link = bpf_syscall::create_link(program, trunk.ifindex, point);
            let link = match point {
                AttachPoint::XdpNative => {
                    link.with_context(|| NoNativeXdp(trunk.name.to_string()))?
                }
                AttachPoint::TcxFirst(_) | AttachPoint::TcxLast(_) | AttachPoint::XdpGeneric => {
                    link.with_context(|| failed_to_attach(trunk, hook))?
                }
            };
            bpf_syscall::pin(&link, &pins.link(hook))
                .with_context(|| format!("failed to pin the link at {}", hook_name(hook)))?;
        }
        pins::commit(&pins.program(hook))
    }

    /// Adds our filter, or replaces its program. A filter is recognised by its program, so the program has to be
    /// pinned at every moment, under its final name or under that of a replacement.
    async fn clsact(self, hook: Direction, program: BorrowedFd<'_>) -> anyhow::Result<()> {
        let Self { trunk, pins, .. } = self;
        let path = pins.program(hook);
        let old = own_filter(self.netlink, trunk.ifindex, pins, hook).await?;
        if let Some(old) = &old
            && program_id(pins, &pins::next(&path))? == Some(old.program_id)
        {
            pins::commit(&path)?;
        }
        pins::stage(&path, |next| bpf_syscall::pin(&program, next))?;
        let label = match hook {
            Direction::Rx => load::RX,
            Direction::Tx => load::TX,
        };
        match old {
            // cls_bpf_change() swaps the program of a filter with the same priority and handle.
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
    format!("failed to attach to {} of {}", hook_name(hook), trunk.name)
}

fn failed_to_replace(trunk: &Trunk, hook: Direction) -> String {
    let (hook, trunk) = (hook_name(hook), &trunk.name);
    format!(
        "failed to replace the program at {hook} of {trunk}; run `vlanfast detach {trunk}` first"
    )
}

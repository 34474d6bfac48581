//! What can go wrong in a way that the user can mend: each says what, why and what to do about it.

use std::{io, process::ExitCode};

use thiserror::Error;

use crate::output;

#[derive(Debug, Error)]
pub enum Error {
    #[error("vlanfast needs {missing}: run it as root, or with `setpriv` or systemd grant them")]
    NotPermitted { missing: String },

    #[error("no such device: {trunk}; `ip link` lists those there are")]
    NoSuchDevice { trunk: String },

    #[error("{trunk} can't be a trunk: it is {what}; name an Ethernet device that carries VLANs")]
    NotATrunk { trunk: String, what: &'static str },

    #[error("{device} is VLAN {vlan} of {trunk}, not the trunk: run `vlanfast attach {trunk}`")]
    VlanDevice {
        device: String,
        vlan: u16,
        trunk: String,
    },

    #[error(
        "{trunk} strips VLAN tags before XDP can see them (rx-vlan-offload is on): attach with \
         --manage-offloads, or run `ethtool -K {trunk} rxvlan off`{peer}, or use --ingress tc"
    )]
    StripsTags { trunk: String, peer: &'static str },

    #[error("{why}: use --ingress tc")]
    KeepsOffload { why: String },

    #[error(
        "--shed would keep frames from receivers on {trunk} that vlanfast can't see ({listeners}): leave \
         it out, or end what listens there"
    )]
    ListenedTo { trunk: String, listeners: String },

    #[error(
        "--shed mac is refused: {trunk} is a {kind}, and takes frames for the MACs of its ports as well; \
         use --shed vlan"
    )]
    TakesForPorts { trunk: String, kind: String },

    #[error(
        "the XDP hook of {trunk} belongs to {owner}: detach that first (`ip link set dev {trunk} \
         xdp off` if it is nobody's any more), or use --ingress tc"
    )]
    HookTaken { trunk: String, owner: String },

    #[error(
        "an ingress qdisc of someone else's is on {trunk}, and this kernel (without tcx, Linux 6.6) has no other \
         place for TC: replace it by clsact, which takes the same filters (`tc qdisc del dev {trunk} ingress`, \
         then `tc qdisc add dev {trunk} clsact`)"
    )]
    IngressQdisc { trunk: String },

    #[error("{what}: {remedy}")]
    Kernel { what: String, remedy: &'static str },

    #[error(
        "vlanfast is attached to {trunk} already, by process {pid}: stop that, or run \
         `vlanfast detach {trunk}`"
    )]
    AlreadyAttached { trunk: String, pid: String },

    #[error(
        "vlanfast is attached to {trunk} ({programs}), by pins that are in another BPF file system, or of the \
         network namespace that the device came from: run `vlanfast detach {trunk}` where it was attached"
    )]
    PinnedElsewhere { trunk: String, programs: String },

    #[error("{directory} can't be trusted: {why}; vlanfast touches nothing in it: {remedy}")]
    Untrusted {
        directory: String,
        why: String,
        remedy: String,
    },

    #[error(
        "{holder} has locked the pins of {trunk}, and is no vlanfast that could be ended in order: end it, then \
         try again"
    )]
    Locked { trunk: String, holder: String },

    #[error(
        "{trunk} is detached, but {files} is not vlanfast's, and stays: move it away, then remove the directory"
    )]
    NotOurs { trunk: String, files: String },

    #[error(
        "{trunk} is gone: its device was removed, or moved to another namespace; run `vlanfast attach` \
         when it is back"
    )]
    TrunkGone { trunk: String },

    #[error(
        "failed to {asked}: netlink does not answer; try again, and if it stays silent, look in `dmesg` for \
         a network driver that hangs"
    )]
    Silent { asked: String },

    #[error(
        "somebody has removed the pins of {trunk} from the BPF file system, and its programs with them; run \
         `vlanfast attach {trunk}` anew"
    )]
    PinsGone { trunk: String },

    #[error("vlanfast is not attached to {trunk}: run `vlanfast attach {trunk}`")]
    NotAttached { trunk: String },
}

impl Error {
    const fn exit_code(&self) -> u8 {
        match self {
            Self::NotAttached { .. }
            | Self::PinsGone { .. }
            | Self::Silent { .. }
            | Self::Locked { .. }
            | Self::NotOurs { .. } => 1,
            Self::NotPermitted { .. } => 3,
            Self::NoSuchDevice { .. }
            | Self::NotATrunk { .. }
            | Self::VlanDevice { .. }
            | Self::TrunkGone { .. }
            | Self::StripsTags { .. }
            | Self::KeepsOffload { .. }
            | Self::TakesForPorts { .. }
            | Self::ListenedTo { .. } => 4,
            Self::HookTaken { .. } | Self::IngressQdisc { .. } | Self::Untrusted { .. } => 5,
            Self::Kernel { .. } => 6,
            Self::AlreadyAttached { .. } | Self::PinnedElsewhere { .. } => 7,
        }
    }
}

/// Prints a failure on one line and says with which code to exit.
pub fn report(failure: &anyhow::Error) -> ExitCode {
    // A reader that has seen enough (`vlanfast counters | head`) is no failure.
    if let Some(error) = failure.downcast_ref::<io::Error>()
        && error.kind() == io::ErrorKind::BrokenPipe
    {
        return ExitCode::SUCCESS;
    }
    output::note(&format!("error: {failure:#}"));
    match failure.downcast_ref::<Error>() {
        Some(error) => ExitCode::from(error.exit_code()),
        None => ExitCode::FAILURE,
    }
}

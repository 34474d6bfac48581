//! The errors that the user can fix. Each says in one line what is wrong, why, and what to do about it.

use std::{io, process::ExitCode};

use thiserror::Error;

use crate::output;

#[derive(Debug, Error)]
pub enum Error {
    #[error(
        "vlanfast lacks {missing}: run it as root, or grant it these capabilities by `setpriv` or systemd"
    )]
    NotPermitted { missing: String },

    #[error("no such device: {trunk}; `ip link` lists the devices")]
    NoSuchDevice { trunk: String },

    #[error(
        "{trunk} can't be a trunk, because it is {what}: name the Ethernet device that carries the VLANs"
    )]
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
        "--shed would drop frames for receivers on {trunk} that vlanfast can't see ({listeners}): leave --shed out, \
         or end these receivers"
    )]
    ListenedTo { trunk: String, listeners: String },

    #[error(
        "--shed mac can't be used on {trunk}, because a {kind} also receives frames for the MACs of its ports: use \
         --shed vlan"
    )]
    TakesForPorts { trunk: String, kind: String },

    #[error(
        "the XDP hook of {trunk} is in use by {owner}: detach that program (`ip link set dev {trunk} xdp off` if \
         nothing needs it), or use --ingress tc"
    )]
    HookTaken { trunk: String, owner: String },

    #[error(
        "{trunk} has an ingress qdisc that vlanfast did not add, and this kernel (before Linux 6.6, without tcx) has \
         no other place for TC programs: replace it by clsact, which holds the same filters (`tc qdisc del dev \
         {trunk} ingress`, then `tc qdisc add dev {trunk} clsact`)"
    )]
    IngressQdisc { trunk: String },

    #[error("{what}: {remedy}")]
    Kernel { what: String, remedy: &'static str },

    #[error(
        "vlanfast is already attached to {trunk}, by process {pid}: stop that process, or run `vlanfast detach \
         {trunk}`"
    )]
    AlreadyAttached { trunk: String, pid: String },

    #[error(
        "vlanfast is attached to {trunk} ({programs}), but its pins are in another BPF file system, or belong to \
         the network namespace that the device came from: run `vlanfast detach {trunk}` where it was attached"
    )]
    PinnedElsewhere { trunk: String, programs: String },

    #[error("{directory} can't be trusted, because {why}: {remedy}")]
    Untrusted {
        directory: String,
        why: String,
        remedy: String,
    },

    #[error(
        "the pin directory of {trunk} is locked by {holder}, which is not vlanfast: end that process, then try again"
    )]
    Locked { trunk: String, holder: String },

    #[error(
        "{trunk} is detached, but its pin directory has files that are not vlanfast's ({files}): move them away, \
         then remove the directory"
    )]
    NotOurs { trunk: String, files: String },

    #[error(
        "{trunk} is gone, because the device was removed or moved to another network namespace: run `vlanfast \
         attach` when it is back"
    )]
    TrunkGone { trunk: String },

    #[error(
        "failed to {asked}: netlink does not answer; try again, and if that does not help, look in `dmesg` for a \
         network driver that hangs"
    )]
    Silent { asked: String },

    #[error(
        "the programs on {trunk} are gone, because somebody removed the pins from the BPF file system: run \
         `vlanfast attach {trunk}` again"
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

/// Prints an error on one line and returns the exit code.
pub fn report(failure: &anyhow::Error) -> ExitCode {
    // A reader that closes the pipe early (`vlanfast counters | head`) is no failure.
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

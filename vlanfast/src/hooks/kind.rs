//! The hooks by name, and the ways to attach a program to one.

use vlanfast_common::Direction;

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachKind {
    Tcx,
    Clsact,
    XdpNative,
    XdpGeneric,
}

impl AttachKind {
    pub const fn is_xdp(self) -> bool {
        matches!(self, Self::XdpNative | Self::XdpGeneric)
    }

    /// The word in `status`, in JSON and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
            Self::XdpNative => "xdp-native",
            Self::XdpGeneric => "xdp-generic",
        }
    }
}

/// Both hooks of a trunk.
pub const HOOKS: [Direction; 2] = [Direction::Rx, Direction::Tx];

/// The hook's name in `status`, in JSON and in metrics.
pub const fn hook_name(hook: Direction) -> &'static str {
    match hook {
        Direction::Rx => "ingress",
        Direction::Tx => "egress",
    }
}

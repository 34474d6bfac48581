//! Which endpoints a frame cannot be redirected to.

use crate::abi::{Endpoint, Parent};

/// Why the frames of a macvlan or macvtap take the kernel's own path, by the VLAN's device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedirectBlocked {
    /// The endpoint is in another namespace. A redirect finds devices of the trunk's own namespace alone.
    Elsewhere,
    /// Two devices have its MAC. The kernel's own path knows which of them the frame reaches.
    Conflict,
    /// Others on the VLAN receive or read its frames, and would miss them.
    Listeners,
    /// The VLAN's device is down, which ends the frame, or it is in another namespace.
    Down,
}

/// The first reason that applies.
#[inline(always)]
pub const fn redirect_blocked_by(parent: Parent, endpoint: Endpoint) -> Option<RedirectBlocked> {
    if endpoint.nsid != Endpoint::OWN_NAMESPACE {
        Some(RedirectBlocked::Elsewhere)
    } else if endpoint.has(Endpoint::CONFLICT) {
        Some(RedirectBlocked::Conflict)
    } else if parent.has(Parent::NO_STEER) {
        Some(RedirectBlocked::Listeners)
    } else if parent.ifindex == 0 || !parent.has(Parent::UP) {
        Some(RedirectBlocked::Down)
    } else {
        None
    }
}

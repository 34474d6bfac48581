//! Why what comes in for a macvlan or macvtap can't go straight to that device.

use crate::{Endpoint, Parent};

/// Why its frames take the kernel's own path, by way of the VLAN's device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedirectBlocked {
    /// The receiver is in another namespace: a redirect finds devices of the trunk's own alone.
    Elsewhere,
    /// Two devices have its MAC, and macvlan knows which of them takes the frame.
    Conflict,
    /// Others on the VLAN take or read frames, and would miss it.
    Listeners,
    /// The VLAN's device is down, which ends the frame, or it is in another namespace.
    Down,
}

/// The first reason of those that there are.
#[inline(always)]
pub const fn redirect_blocked_by(parent: Parent, receiver: Endpoint) -> Option<RedirectBlocked> {
    if receiver.nsid != Endpoint::OWN_NAMESPACE {
        Some(RedirectBlocked::Elsewhere)
    } else if receiver.has(Endpoint::CONFLICT) {
        Some(RedirectBlocked::Conflict)
    } else if parent.has(Parent::NO_STEER) {
        Some(RedirectBlocked::Listeners)
    } else if parent.ifindex == 0 || !parent.has(Parent::UP) {
        Some(RedirectBlocked::Down)
    } else {
        None
    }
}

//! Why what comes in for a macvlan or macvtap can't go straight to that device.

use crate::{Endpoint, Parent};

/// Why its frames take the kernel's own path, by way of the VLAN's device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detour {
    /// The taker is in another namespace: a redirect finds devices of the trunk's own alone.
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
pub const fn detour(parent: Parent, taker: Endpoint) -> Option<Detour> {
    if taker.nsid != Endpoint::OWN_NAMESPACE {
        Some(Detour::Elsewhere)
    } else if taker.has(Endpoint::CONFLICT) {
        Some(Detour::Conflict)
    } else if parent.has(Parent::ALONE) {
        Some(Detour::Listeners)
    } else if parent.ifindex == 0 || !parent.has(Parent::UP) {
        Some(Detour::Down)
    } else {
        None
    }
}

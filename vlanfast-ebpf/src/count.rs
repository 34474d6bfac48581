//! Adds to the counters of a VLAN. Every frame is counted here, once.

use vlanfast_common::{Direction, Headers, Verdict, Vlan, Wire};

use crate::maps::COUNTERS;

/// Counts a frame under the verdict that was decided and the one that was carried out (`done`),
/// which differ in a dry run. If the counters can't be found, the frame is passed on uncounted.
#[inline(always)]
pub fn frame(direction: Direction, headers: &Headers, wire: Wire, verdict: Verdict, done: Verdict) {
    if let Some(counters) = COUNTERS.get_ptr_mut(headers.vlan.key()) {
        // SAFETY: the value belongs to this CPU, which runs our programs one after the other: XDP
        // and TC both run with softirqs off.
        let counters = unsafe { &mut *counters };
        counters.add(direction, headers.cast, wire, verdict, done);
    }
}

/// Counts a packet that takes the shortcut at a VLAN device, where the trunk never sees it.
#[inline(always)]
pub fn shortcut(vlan: Vlan) {
    if let Some(counters) = COUNTERS.get_ptr_mut(vlan.key()) {
        // SAFETY: the value belongs to this CPU, which runs our programs one after the other.
        unsafe { (*counters).shortcut += 1 };
    }
}

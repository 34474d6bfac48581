//! The one place that counts.

use vlanfast_common::{Direction, Headers, Verdict, Vlan, Wire};

use crate::maps::COUNTERS;

/// Counts a frame. A counter that can't be found costs a count, never a packet.
#[inline(always)]
pub fn count(direction: Direction, headers: &Headers, wire: Wire, verdict: Verdict, done: Verdict) {
    if let Some(counters) = COUNTERS.get_ptr_mut(headers.vlan.key()) {
        // SAFETY: the value belongs to this CPU, which runs our programs one after the other: XDP
        // and TC both run with softirqs off.
        let counters = unsafe { &mut *counters };
        counters.add(direction, headers.cast, wire, verdict, done);
    }
}

/// Counts a single packet that takes the shortcut.
#[inline(always)]
pub fn shortcut(vlan: Vlan) {
    if let Some(counters) = COUNTERS.get_ptr_mut(vlan.key()) {
        // SAFETY: as above.
        unsafe { (*counters).shortcut += 1 };
    }
}

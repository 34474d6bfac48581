//! Messages of `vlanfast attach -v`. The level is a constant of the loaded program, so at the
//! default level the verifier removes all of this.

use aya_ebpf::EbpfContext;
use aya_log_ebpf::{
    debug,
    macro_support::{Level, level_enabled},
    trace,
};
use vlanfast_common::{Direction, Frame, Headers, Protocol, Verdict, Wire, wire};

use crate::maps::OPAQUE;

/// Whether any messages are wanted.
#[inline(always)]
pub fn is_enabled() -> bool {
    level_enabled(Level::Debug)
}

/// Returns the number that it is given; where messages are wanted, the verifier can't tell its value
/// any more.
///
/// Otherwise the verifier would go through every message once for each value that leads to it, and
/// exceed its limit of instructions.
#[inline(always)]
pub fn opaque(number: u64) -> u64 {
    if !is_enabled() {
        return number;
    }
    match OPAQUE.get_ptr_mut(0) {
        // SAFETY: the value belongs to this CPU, which runs our programs one after the other.
        Some(slot) => unsafe {
            slot.write_volatile(number);
            slot.read_volatile()
        },
        // This can't happen, as the map has an entry 0; the verifier does not know it.
        None => 0,
    }
}

/// Logs a frame under its verdict, given as bits. With `-v`, only frames that are steered, dropped,
/// or passed without being parsed to the end are logged; with `-vv`, all frames are.
#[inline(always)]
pub fn frame(
    ctx: &impl EbpfContext,
    frame: &impl Frame,
    direction: Direction,
    headers: &Headers,
    verdict: u64,
) {
    let verdict = Verdict::from_bits(verdict);
    let Wire { packets, bytes } = wire(frame, headers);
    let direction = match direction {
        Direction::Rx => "rx",
        Direction::Tx => "tx",
    };
    // Key 4096 stands for 802.1ad, 4097 for a frame too short to have a VLAN.
    let vlan = headers.vlan.key();
    let number = headers.protocol.number();
    if let Verdict::Steer { mac } = verdict {
        debug!(
            ctx,
            "{} vlan {}: type {:x}, steered to {:mac}", direction, vlan, number, mac.0
        );
    } else if let Verdict::Drop(reason) = verdict {
        let reason = reason.name();
        debug!(
            ctx,
            "{} vlan {}: type {:x}, dropped: {}", direction, vlan, number, reason
        );
    } else if headers.protocol == Protocol::TRUNCATED {
        debug!(
            ctx,
            "{} vlan {}: passed, the frame ends within its headers", direction, vlan
        );
    } else if headers.protocol.is_stacked() {
        debug!(
            ctx,
            "{} vlan {}: passed, a further tag {:x} follows", direction, vlan, number
        );
    } else {
        trace!(
            ctx,
            "{} vlan {}: type {:x}, {} packets, {} bytes", direction, vlan, number, packets, bytes
        );
    }
}

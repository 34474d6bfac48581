//! Messages for `vlanfast attach -v`. The level is a constant of the loaded program, so at the
//! default the verifier removes all of this.

use aya_ebpf::EbpfContext;
use aya_log_ebpf::{
    debug,
    macro_support::{Level, level_enabled},
    trace,
};
use vlanfast_common::{Direction, Frame, Headers, Protocol, Verdict, Wire, wire};

use crate::maps::UNKNOWN;

/// Whether anything is wanted.
#[inline(always)]
pub fn is_on() -> bool {
    level_enabled(Level::Debug)
}

/// The same number, of which the verifier knows nothing any more, where messages are wanted. It would go through
/// every message for each way to it, and give up.
#[inline(always)]
pub fn unknown(number: u64) -> u64 {
    if !is_on() {
        return number;
    }
    match UNKNOWN.get_ptr_mut(0) {
        // SAFETY: the value belongs to this CPU, which runs our programs one after the other.
        Some(place) => unsafe {
            place.write_volatile(number);
            place.read_volatile()
        },
        // There is one.
        None => 0,
    }
}

/// `-v`: frames that are passed without being read to the end, steered or dropped. `-vv`: every frame.
#[inline(always)]
pub fn report(
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
    // 4096 is 802.1ad, 4097 a frame too short to say.
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

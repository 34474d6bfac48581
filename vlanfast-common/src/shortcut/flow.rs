//! `--shortcut learned`: a flow between two containers of this host takes the shortcut once the router was seen to
//! forward it. Switches call this multi-layer switching.
//!
//! A packet that goes to the router is a candidate, or probe; the same packet coming back with one hop less enables the
//! flow. An enabled flow takes the shortcut. At every refresh it probes the router again, with a packet that takes both
//! paths, and of which what comes back from the router is dropped.

use super::packet::Packet;
use crate::{
    abi::{Flow, Mac, Route, VlanPairCounters},
    atomic,
};

/// How long the router has to forward the first probe of a flow, in nanoseconds.
pub const CANDIDATE: u64 = 5_000_000_000;
/// How long the router has to forward any other probe.
pub const ANSWER: u64 = 1_000_000_000;
/// How long after its refresh was due a flow may still probe while it takes the shortcut. A flow that is later begins
/// anew, so that the router has its time, and yet nothing that it refuses goes on for longer than that.
pub const LATE: u64 = ANSWER / 2;
/// A flow without a packet for so long has ended.
pub const IDLE: u64 = 60_000_000_000;

/// A flag of [`Flow::probe`]: a clone of the packet has taken the shortcut.
const CLONED: u64 = 1 << 32;
/// A flag of [`Flow::acknowledged`]: there is such a number.
const HAS_ACKNOWLEDGED: u64 = 1 << 32;

/// What a flow does with a packet that leaves its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The packet goes to the router.
    Router,
    /// The packet goes to the router, and enables the flow if it comes back.
    Candidate,
    /// The packet goes to the router as a probe of an enabled flow.
    Probe,
    /// The packet takes the shortcut.
    Shortcut,
    /// A clone takes the shortcut, and the packet goes to the router as a probe.
    ShortcutAndProbe,
    /// The router did not forward the last probe, so the flow ends.
    Failed,
}

/// What a packet is to a flow when it comes in from the router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// It is no probe.
    Ordinary,
    /// It is the first probe of a flow, which it enables.
    Enables,
    /// It is a probe whose clone took the shortcut: the receiver has it already.
    Returned,
}

impl Flow {
    /// A packet leaves for the router, and its receiver is known. `acknowledged` says how far the opposite direction has
    /// acknowledged this one, if there is one.
    #[inline(always)]
    pub fn leave(
        &self,
        packet: &Packet,
        receiver: Route,
        acknowledged: impl FnOnce() -> Option<u32>,
        (now, refresh): (u64, u64),
    ) -> Step {
        let last = atomic::load(&self.seen);
        atomic::store(&self.seen, now);
        atomic::store(
            &self.acknowledged,
            HAS_ACKNOWLEDGED | packet.acknowledged as u64,
        );
        let (asked, answered) = (atomic::load(&self.asked), atomic::load(&self.answered));
        let is_the_same = atomic::load(&self.gateway) == packet.destination.to_bits()
            && atomic::load(&self.sender) == packet.source.to_bits()
            && atomic::load(&self.receiver) == receiver_bits(receiver);
        let begins_anew = match answered {
            0 => since(now, asked) >= ANSWER,
            _ => asked <= answered && refresh != 0 && since(now, answered) >= refresh + LATE,
        };
        if !is_the_same || begins_anew || since(now, last) >= IDLE {
            self.open(packet, receiver, now);
            return Step::Candidate;
        }
        if answered == 0 {
            return Step::Router;
        }
        if atomic::load(&self.moved) == 0 {
            // TCP waits until its receiver has everything before this packet: then none can overtake another that is
            // still with the router. Datagrams have no order to keep.
            if packet.is_tcp() && acknowledged() != Some(packet.start) {
                return Step::Router;
            }
            atomic::store(&self.moved, now);
        }
        if asked > answered {
            if since(now, answered) >= refresh + ANSWER {
                return Step::Failed;
            }
        } else if refresh != 0 && since(now, answered) >= refresh {
            // The fragments of a UDP buffer could not be told apart when they come back.
            let cloned = packet.is_tcp() || !packet.is_segmented();
            self.send_probe(packet, now, cloned);
            if !cloned {
                return Step::Probe;
            }
            self.count(packet);
            return Step::ShortcutAndProbe;
        }
        self.count(packet);
        Step::Shortcut
    }

    /// A packet comes in on the receiver's VLAN.
    #[inline(always)]
    pub fn arrive(&self, packet: &Packet, receiver: Route, now: u64) -> Arrival {
        if atomic::load(&self.receiver) != receiver_bits(receiver) || packet.is_syn_fin_rst() {
            return Arrival::Ordinary;
        }
        let probe = atomic::load(&self.probe);
        let asked = atomic::load(&self.asked);
        // A router takes one hop, neither more nor less.
        if packet.hops as u64 + 1 != probe >> 40 & 0xff {
            return Arrival::Ordinary;
        }
        let bounds = atomic::load(&self.bounds);
        if probe & CLONED != 0 {
            let is_part = match has_data(packet) {
                true => covers(packet, probe, bounds),
                false => is_same(packet, probe, bounds),
            };
            if !is_part || since(now, asked) >= ANSWER {
                return Arrival::Ordinary;
            }
            atomic::store(&self.answered, now.max(asked));
            return Arrival::Returned;
        }
        let answered = atomic::load(&self.answered);
        let patience = match answered {
            0 => CANDIDATE,
            _ => ANSWER,
        };
        let is_late = answered >= asked || since(now, asked) >= patience;
        if is_late || !is_same(packet, probe, bounds) {
            return Arrival::Ordinary;
        }
        atomic::store(&self.answered, now.max(asked));
        match answered {
            0 => Arrival::Enables,
            _ => Arrival::Ordinary,
        }
    }

    /// Begins anew, with a packet as the first probe.
    #[inline(always)]
    fn open(&self, packet: &Packet, receiver: Route, now: u64) {
        atomic::store(&self.answered, 0);
        atomic::store(&self.moved, 0);
        atomic::store(&self.gateway, packet.destination.to_bits());
        atomic::store(&self.sender, packet.source.to_bits());
        atomic::store(&self.receiver, receiver_bits(receiver));
        self.send_probe(packet, now, false);
    }

    #[inline(always)]
    fn send_probe(&self, packet: &Packet, now: u64, cloned: bool) {
        let flags = match cloned {
            true => CLONED,
            false => 0,
        };
        atomic::store(&self.probe, probe(packet) | flags);
        atomic::store(&self.bounds, bounds(packet));
        atomic::store(&self.asked, now);
    }

    #[inline(always)]
    fn count(&self, packet: &Packet) {
        atomic::add(&self.packets, packet.wire.packets);
        atomic::add(&self.bytes, packet.wire.bytes);
    }

    /// What the flow's last packet acknowledges of the opposite direction.
    #[inline(always)]
    pub fn acknowledged(&self) -> Option<u32> {
        let number = atomic::load(&self.acknowledged);
        (number & HAS_ACKNOWLEDGED != 0).then_some(number as u32)
    }

    /// How far the flow has come, by the clock of [`Lookup::exact_now`](crate::Lookup::exact_now); `None` for a flow
    /// whose next packet begins anew.
    pub fn state(&self, now: u64) -> Option<FlowState> {
        let asked = atomic::load(&self.asked);
        let answered = atomic::load(&self.answered);
        if since(now, atomic::load(&self.seen)) >= IDLE {
            return None;
        }
        match (answered, atomic::load(&self.moved)) {
            (0, _) => (since(now, asked) < CANDIDATE).then_some(FlowState::Candidate),
            (_, 0) => Some(FlowState::Enabled),
            _ => Some(FlowState::Shortcut),
        }
    }
}

/// How far a flow has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowState {
    /// It has sent a probe, which the router has not forwarded yet.
    Candidate,
    /// The router has forwarded the probe, and TCP waits until its receiver has everything that is on that path.
    Enabled,
    /// Its packets take the shortcut.
    Shortcut,
}

impl FlowState {
    /// The word in `flows`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Candidate => "candidate",
            Self::Enabled => "enabled",
            Self::Shortcut => "shortcut",
        }
    }
}

/// The time since an event, 0 where another CPU has a later clock.
#[inline(always)]
const fn since(now: u64, then: u64) -> u64 {
    now.saturating_sub(then)
}

#[inline(always)]
const fn receiver_bits(receiver: Route) -> u64 {
    (receiver.vid as u64) << 48 | Mac(receiver.mac).to_bits()
}

/// What [`Flow::probe`] keeps of a packet, without its flags.
#[inline(always)]
const fn probe(packet: &Packet) -> u64 {
    (packet.identification as u64) << 48 | (packet.hops as u64) << 40 | packet.start as u64
}

#[inline(always)]
const fn bounds(packet: &Packet) -> u64 {
    (packet.acknowledged as u64) << 32 | packet.end as u64
}

/// Whether a packet has bytes of a stream, of which the router may forward a part at a time.
#[inline(always)]
const fn has_data(packet: &Packet) -> bool {
    packet.is_tcp() && packet.end != packet.start
}

/// Whether a packet is the probe, whatever its TTL or hop limit.
#[inline(always)]
const fn is_same(packet: &Packet, asked: u64, asked_bounds: u64) -> bool {
    const HOPS_AND_FLAGS: u64 = 0xffff << 32;
    // A buffer that left as one comes back as several segments, of which the first begins at the same number.
    let length = match has_data(packet) {
        true => u32::MAX as u64,
        false => 0,
    };
    (probe(packet) ^ asked) & !HOPS_AND_FLAGS == 0 && (bounds(packet) ^ asked_bounds) & !length == 0
}

/// Whether a packet with data is a part of the probe.
#[inline(always)]
const fn covers(packet: &Packet, asked: u64, asked_bounds: u64) -> bool {
    let start = asked as u32;
    let first = packet.start.wrapping_sub(start);
    let last = packet.end.wrapping_sub(start);
    let end = (asked_bounds as u32).wrapping_sub(start);
    first <= last && last <= end && packet.acknowledged == (asked_bounds >> 32) as u32
}

impl VlanPairCounters {
    /// Counts what a flow does with a packet.
    #[inline(always)]
    pub fn count(&self, step: Step, packet: &Packet) {
        match step {
            Step::Router => {}
            Step::Candidate => atomic::add(&self.candidates, 1),
            Step::Probe => atomic::add(&self.refreshes, 1),
            Step::Failed => atomic::add(&self.failures, 1),
            Step::Shortcut => self.count_shortcut(packet),
            Step::ShortcutAndProbe => {
                atomic::add(&self.refreshes, 1);
                self.count_shortcut(packet);
            }
        }
    }

    /// Counts a flow that was enabled.
    #[inline(always)]
    pub fn enable(&self) {
        atomic::add(&self.enabled, 1);
    }

    #[inline(always)]
    fn count_shortcut(&self, packet: &Packet) {
        atomic::add(&self.packets, packet.wire.packets);
        atomic::add(&self.bytes, packet.wire.bytes);
    }
}

//! What a router has been seen to do with packets from one container of this host to another: multi-layer
//! switching by the router's word.
//!
//! A packet that goes to the router is a question, and the same packet coming back one hop on is the answer.
//! A flow that was answered takes the shortcut; every so often it asks again, with a packet that takes both ways
//! and whose second copy is dropped when it comes back.

use core::sync::atomic::AtomicU64;

use crate::{Mac, Packet, Route, atomic};

/// How long the first question of a flow may be answered.
pub const CANDIDATE: u64 = 5_000_000_000;
/// How long the router has for any other.
pub const ANSWER: u64 = 1_000_000_000;
/// How long after its time a flow may still ask while it goes on. One that comes later begins anew, so that the
/// router has its time, and yet nothing that it refuses goes on for longer than that.
pub const LATE: u64 = ANSWER / 2;
/// A flow without a packet for so long is forgotten.
pub const IDLE: u64 = 60_000_000_000;

/// A value of the LRU hash `FLOWS`. 96 bytes, host byte order; times in nanoseconds of CLOCK_MONOTONIC, 0 for
/// never. Whoever sends and whoever receives may be on different CPUs: each number is read and written as one.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Flow {
    /// When the last question went out.
    pub asked: AtomicU64,
    /// When the router last answered.
    pub answered: AtomicU64,
    /// When it took to the shortcut.
    pub moved: AtomicU64,
    /// When its last packet left its sender.
    pub seen: AtomicU64,
    /// Packets and bytes that took the shortcut, as the wire would have carried them.
    pub packets: AtomicU64,
    pub bytes: AtomicU64,
    /// The last question: 16 bits of identification, 8 of hops, 8 of flags, 32 of [`Packet::start`].
    question: AtomicU64,
    /// Its [`Packet::acknowledged`], and below it its [`Packet::end`].
    bounds: AtomicU64,
    /// What its last packet acknowledged of the other direction, with [`SAID`].
    acknowledged: AtomicU64,
    /// The router's MAC on the sender's VLAN, and the sender's.
    gateway: AtomicU64,
    sender: AtomicU64,
    /// The receiver's MAC, and above it the VID of its VLAN.
    receiver: AtomicU64,
}

const _: () = assert!(size_of::<Flow>() == 96);

/// A flag of a question: the same packet has taken the shortcut as well.
const COPIED: u64 = 1 << 32;
/// There is a number.
const SAID: u64 = 1 << 32;

/// What becomes of a packet that leaves its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// To the router.
    Router,
    /// The same, and if it comes back the flow is enabled.
    Candidate,
    /// The same: a question of a flow that goes on by the shortcut.
    Probe,
    /// By the shortcut.
    Shortcut,
    /// Both ways.
    ShortcutAndProbe,
    /// The router did not answer: the flow is none any more.
    Failed,
}

/// What a packet is that comes in from the router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// One like any other.
    Ordinary,
    /// The answer to a flow's first question.
    Enables,
    /// The receiver has it already.
    Returned,
}

impl Flow {
    /// A packet leaves for the router, whose receiver is known. `acknowledged` is what the other direction has said
    /// by then, if there is one.
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
        atomic::store(&self.acknowledged, SAID | packet.acknowledged as u64);
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
            // Where the receiver has everything before it, no packet can overtake one that is still with the
            // router. Of datagrams nobody is promised an order.
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
            // The parts of a datagram could not be told apart when they come back.
            let copied = packet.is_tcp() || !packet.is_segmented();
            self.ask(packet, now, copied);
            if !copied {
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
        let question = atomic::load(&self.question);
        let asked = atomic::load(&self.asked);
        // One hop, neither more nor less.
        if packet.hops as u64 + 1 != question >> 40 & 0xff {
            return Arrival::Ordinary;
        }
        let bounds = atomic::load(&self.bounds);
        if question & COPIED != 0 {
            let is_part = match has_data(packet) {
                true => covers(packet, question, bounds),
                false => is_same(packet, question, bounds),
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
        if is_late || !is_same(packet, question, bounds) {
            return Arrival::Ordinary;
        }
        atomic::store(&self.answered, now.max(asked));
        match answered {
            0 => Arrival::Enables,
            _ => Arrival::Ordinary,
        }
    }

    /// Begins anew.
    #[inline(always)]
    fn open(&self, packet: &Packet, receiver: Route, now: u64) {
        atomic::store(&self.answered, 0);
        atomic::store(&self.moved, 0);
        atomic::store(&self.gateway, packet.destination.to_bits());
        atomic::store(&self.sender, packet.source.to_bits());
        atomic::store(&self.receiver, receiver_bits(receiver));
        self.ask(packet, now, false);
    }

    #[inline(always)]
    fn ask(&self, packet: &Packet, now: u64, copied: bool) {
        let flags = match copied {
            true => COPIED,
            false => 0,
        };
        atomic::store(&self.question, question(packet) | flags);
        atomic::store(&self.bounds, bounds(packet));
        atomic::store(&self.asked, now);
    }

    #[inline(always)]
    fn count(&self, packet: &Packet) {
        atomic::add(&self.packets, packet.wire.packets);
        atomic::add(&self.bytes, packet.wire.bytes);
    }

    /// What its last packet acknowledged of the other direction.
    #[inline(always)]
    pub fn acknowledged(&self) -> Option<u32> {
        let said = atomic::load(&self.acknowledged);
        (said & SAID != 0).then_some(said as u32)
    }

    /// The receiver's VLAN.
    pub fn receiver_vid(&self) -> u16 {
        (atomic::load(&self.receiver) >> 48) as u16
    }

    /// What has become of it, by the clock of [`Tables::exact_now`](crate::Tables::exact_now); `None` for one
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
    /// It has asked, and the router has not answered yet.
    Candidate,
    /// The router has answered, and TCP waits until its receiver has everything that is with it.
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

/// As user space reads it from the map.
impl From<[u64; 12]> for Flow {
    fn from(words: [u64; 12]) -> Self {
        let [
            asked,
            answered,
            moved,
            seen,
            packets,
            bytes,
            question,
            bounds,
            acknowledged,
            gateway,
            sender,
            receiver,
        ] = words.map(AtomicU64::new);
        Self {
            asked,
            answered,
            moved,
            seen,
            packets,
            bytes,
            question,
            bounds,
            acknowledged,
            gateway,
            sender,
            receiver,
        }
    }
}

/// Not negative: another CPU may be ahead.
#[inline(always)]
const fn since(now: u64, then: u64) -> u64 {
    now.saturating_sub(then)
}

#[inline(always)]
const fn receiver_bits(receiver: Route) -> u64 {
    (receiver.vid as u64) << 48 | Mac(receiver.mac).to_bits()
}

/// A packet as [`Flow`] keeps it.
#[inline(always)]
const fn question(packet: &Packet) -> u64 {
    (packet.identification as u64) << 48 | (packet.hops as u64) << 40 | packet.start as u64
}

#[inline(always)]
const fn bounds(packet: &Packet) -> u64 {
    (packet.acknowledged as u64) << 32 | packet.end as u64
}

/// Whether a packet has bytes of a stream, of which the router may send on a part.
#[inline(always)]
const fn has_data(packet: &Packet) -> bool {
    packet.is_tcp() && packet.end != packet.start
}

/// Whether a packet is the one that was asked with, whatever its hops.
#[inline(always)]
const fn is_same(packet: &Packet, asked: u64, asked_bounds: u64) -> bool {
    const HOPS_AND_FLAGS: u64 = 0xffff << 32;
    // What is one buffer here comes back as several segments, of which the first begins alike.
    let length = match has_data(packet) {
        true => u32::MAX as u64,
        false => 0,
    };
    (question(packet) ^ asked) & !HOPS_AND_FLAGS == 0
        && (bounds(packet) ^ asked_bounds) & !length == 0
}

/// Whether a packet with data is part of the one that was asked with.
#[inline(always)]
const fn covers(packet: &Packet, asked: u64, asked_bounds: u64) -> bool {
    let start = asked as u32;
    let first = packet.start.wrapping_sub(start);
    let last = packet.end.wrapping_sub(start);
    let end = (asked_bounds as u32).wrapping_sub(start);
    first <= last && last <= end && packet.acknowledged == (asked_bounds >> 32) as u32
}

//! What became of flows, by the VLANs that they join.

use core::sync::atomic::AtomicU64;

use crate::{Packet, Step, atomic};

/// The key of the hash `PAIRS`: VLANs between which a flow was seen, the sender's first. 4 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VlanPair {
    pub from: u16,
    pub to: u16,
}

/// A value of the hash `PAIRS`: what became of flows between two VLANs. 48 bytes, host byte order; totals since
/// the map was made.
#[repr(C)]
#[derive(Debug, Default)]
pub struct VlanPairCounters {
    /// Questions of flows that were not enabled.
    pub candidates: AtomicU64,
    /// Flows that were.
    pub enabled: AtomicU64,
    /// Packets and bytes that took the shortcut, as the wire would have carried them.
    pub packets: AtomicU64,
    pub bytes: AtomicU64,
    /// Questions of flows that were enabled.
    pub refreshes: AtomicU64,
    /// Those that the router did not answer.
    pub failures: AtomicU64,
}

impl VlanPairCounters {
    #[inline(always)]
    pub fn count(&self, step: Step, packet: &Packet) {
        match step {
            Step::Router => {}
            Step::Candidate => atomic::add(&self.candidates, 1),
            Step::Probe => atomic::add(&self.refreshes, 1),
            Step::Failed => atomic::add(&self.failures, 1),
            Step::Shortcut => self.carried(packet),
            Step::ShortcutAndProbe => {
                atomic::add(&self.refreshes, 1);
                self.carried(packet);
            }
        }
    }

    #[inline(always)]
    pub fn enable(&self) {
        atomic::add(&self.enabled, 1);
    }

    #[inline(always)]
    fn carried(&self, packet: &Packet) {
        atomic::add(&self.packets, packet.wire.packets);
        atomic::add(&self.bytes, packet.wire.bytes);
    }
}

/// As user space reads it from the map.
impl From<[u64; 6]> for VlanPairCounters {
    fn from(words: [u64; 6]) -> Self {
        let [candidates, enabled, packets, bytes, refreshes, failures] = words.map(AtomicU64::new);
        Self {
            candidates,
            enabled,
            packets,
            bytes,
            refreshes,
            failures,
        }
    }
}

#[cfg(feature = "user")]
mod pod {
    use super::VlanPair;

    // SAFETY: `repr(C)`, integers alone, without padding.
    unsafe impl aya::Pod for VlanPair {}
}

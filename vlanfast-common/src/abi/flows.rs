//! The maps of `--shortcut learned`, which the programs write: `FLOWS` and `PAIRS`.

use core::{net::IpAddr, sync::atomic::AtomicU64};

use bytemuck::{Pod, Zeroable};

use super::tables::NeighborKey;
use crate::atomic;

/// A key of the LRU hash `FLOWS`: packets one way between two endpoints. 40 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
pub struct FlowKey {
    /// In the order of the wire. An IPv4 address takes the first four bytes, and the rest is 0.
    pub source: [u8; 16],
    pub destination: [u8; 16],
    /// Source and destination port of TCP and UDP; type and identifier of an ICMP echo.
    pub ports: [u16; 2],
    /// The VLAN that the source is on.
    pub vid: u16,
    /// The IANA number of the protocol above IP.
    pub protocol: u8,
    /// 4 or 6.
    pub version: u8,
}

const _: () = assert!(size_of::<FlowKey>() == 40);

impl FlowKey {
    /// The source, on whichever VLAN it is.
    #[inline(always)]
    pub const fn sender(&self) -> NeighborKey {
        self.anywhere(self.source)
    }

    /// The destination, on whichever VLAN it is.
    #[inline(always)]
    pub const fn receiver(&self) -> NeighborKey {
        self.anywhere(self.destination)
    }

    /// The key of the opposite direction: what the receiver sends back from its own VLAN.
    #[inline(always)]
    pub const fn back(&self, vid: u16) -> Self {
        let [from, to] = self.ports;
        Self {
            source: self.destination,
            destination: self.source,
            ports: [to, from],
            vid,
            ..*self
        }
    }

    /// The VLANs that the flow joins, where its destination is on VLAN `to`.
    #[inline(always)]
    pub const fn vlan_pair(&self, to: u16) -> VlanPair {
        VlanPair { from: self.vid, to }
    }

    /// The source's IP address.
    pub fn source(&self) -> IpAddr {
        self.sender().address()
    }

    /// The destination's IP address.
    pub fn destination(&self) -> IpAddr {
        self.receiver().address()
    }

    #[inline(always)]
    const fn anywhere(&self, address: [u8; 16]) -> NeighborKey {
        let key = NeighborKey {
            address,
            vid: 0,
            version: self.version as u16,
        };
        key.anywhere()
    }
}

/// A value of the LRU hash `FLOWS`. It has 96 bytes in host byte order; times are in nanoseconds of CLOCK_MONOTONIC, 0
/// for never.
///
/// Sender and receiver may be on different CPUs, so the fields are atomics: each number is read and written as one.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Flow {
    /// When the last probe went out.
    pub asked: AtomicU64,
    /// When the router last forwarded a probe.
    pub answered: AtomicU64,
    /// When the flow took to the shortcut.
    pub moved: AtomicU64,
    /// When the last packet left its sender.
    pub seen: AtomicU64,
    /// Packets that took the shortcut, as the wire would have carried them.
    pub packets: AtomicU64,
    /// Bytes that took the shortcut, as the wire would have carried them.
    pub bytes: AtomicU64,
    /// The last probe: 16 bits of IPv4's identification, 8 of TTL or hop limit, 8 of flags, 32 of the first sequence
    /// number.
    pub(crate) probe: AtomicU64,
    /// What the last probe acknowledges (upper 32 bits), and the sequence number behind its end.
    pub(crate) bounds: AtomicU64,
    /// What the flow's last packet acknowledges of the opposite direction, and a flag that there is such a number.
    pub(crate) acknowledged: AtomicU64,
    /// The router's MAC on the sender's VLAN.
    pub(crate) gateway: AtomicU64,
    /// The sender's MAC.
    pub(crate) sender: AtomicU64,
    /// The receiver's MAC, and above it the VID of its VLAN.
    pub(crate) receiver: AtomicU64,
}

const _: () = assert!(size_of::<Flow>() == 96);

impl Flow {
    /// The receiver's VLAN.
    pub fn receiver_vid(&self) -> u16 {
        (atomic::load(&self.receiver) >> 48) as u16
    }
}

/// A value as user space reads it from the map.
impl From<[u64; 12]> for Flow {
    fn from(words: [u64; 12]) -> Self {
        let [
            asked,
            answered,
            moved,
            seen,
            packets,
            bytes,
            probe,
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
            probe,
            bounds,
            acknowledged,
            gateway,
            sender,
            receiver,
        }
    }
}

/// A key of the hash `PAIRS`: two VLANs between which a flow was seen, the sender's first. 4 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
pub struct VlanPair {
    pub from: u16,
    pub to: u16,
}

/// A value of the hash `PAIRS`: what became of the flows between two VLANs. It has 48 bytes in host byte order; the
/// fields are totals since the map was made.
///
/// All CPUs add to one value, so the fields are atomics.
#[repr(C)]
#[derive(Debug, Default)]
pub struct VlanPairCounters {
    /// Probes of flows that were not enabled.
    pub candidates: AtomicU64,
    /// Flows that the router's answer enabled.
    pub enabled: AtomicU64,
    /// Packets that took the shortcut, as the wire would have carried them.
    pub packets: AtomicU64,
    /// Bytes that took the shortcut, as the wire would have carried them.
    pub bytes: AtomicU64,
    /// Probes of flows that were enabled.
    pub refreshes: AtomicU64,
    /// Probes of enabled flows that the router did not forward.
    pub failures: AtomicU64,
}

/// A value as user space reads it from the map.
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

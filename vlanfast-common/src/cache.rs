//! The shortcut from a VLAN's own device: what was found for a packet between two is good for the next one between
//! them, for as long as the tables stay as they are.

use crate::{Cast, Frame, Headers, Protocol, Tables, Vid, Vlan, classify::destination, ends};

/// A value of the per-CPU array `SHORTCUT_CACHE`: where packets with the same addresses go that leave by the same device.
///
/// 80 bytes, host byte order; addresses are words in the order of the wire, because LLVM would take bytes one by one.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RouteCacheEntry {
    /// [`Settings::heartbeat`](crate::Settings::heartbeat) when it was found: another means other tables.
    heartbeat: u64,
    /// Of the device that they leave by.
    ifindex: u32,
    /// Of the device of the receiver's VLAN; 0 where the router has them.
    pub to: u32,
    /// Of the device that they leave by.
    vid: u16,
    /// EtherType: IPv4 or IPv6.
    protocol: u16,
    /// Of the device of the receiver's VLAN.
    mtu: u16,
    reserved: u16,
    /// Destination and source on this VLAN.
    macs: [u16; 6],
    /// The same on the other.
    pub next: [u16; 6],
    /// Source and destination; the first four words of IPv4.
    ends: [u16; 16],
}

const _: () = assert!(size_of::<RouteCacheEntry>() == 80);

/// For each version of IP, which goes by the bytes that source and destination take together.
impl RouteCacheEntry {
    pub const IPV4: usize = 8;
    pub const IPV6: usize = 32;

    /// How many are remembered. Two that have one slot are found anew in turns.
    pub const SLOTS: u32 = 256;

    /// The slot of a packet that a router may send on, and has no tag.
    #[inline(always)]
    pub fn slot<const ENDS: usize>(frame: &impl Frame) -> Option<u32> {
        ends(frame, &headers::<ENDS>(Vid::UNTAGGED), Vid::UNTAGGED)?;
        // By the end of the sender's MAC and of the receiver's address: those two are hardly ever the same both ways.
        let sender = u16::from_ne_bytes(frame.read(10)?) as u32;
        let ends = addresses::<ENDS>(frame)?;
        let receiver = u16::from_ne_bytes([ends[ENDS - 2], ends[ENDS - 1]]) as u32;
        let mixed = 31 * sender + 37 * receiver;
        Some((mixed ^ mixed >> 8) % Self::SLOTS)
    }

    /// Finds where a packet goes, which has a [`slot`](Self::slot) and leaves by the device of a VLAN; whether there
    /// was all to find it. In place, because stacks are small.
    #[inline(always)]
    pub fn find<const ENDS: usize>(
        &mut self,
        frame: &impl Frame,
        ifindex: u32,
        vid: Vid,
        heartbeat: u64,
        tables: &impl Tables,
    ) -> bool {
        let headers = headers::<ENDS>(vid);
        let Some((sender, receiver)) = ends(frame, &headers, vid) else {
            return false;
        };
        let (_, to, mac) = destination(frame, sender, receiver, tables).unwrap_or_default();
        let (Some(macs), Some(ends)) = (frame.read::<12>(0), addresses::<ENDS>(frame)) else {
            return false;
        };
        self.heartbeat = heartbeat;
        self.ifindex = ifindex;
        self.to = match macs[0] & 1 {
            0 => to.ifindex,
            // Groups are for everyone.
            _ => 0,
        };
        self.vid = vid.get();
        self.protocol = headers.protocol.number();
        self.mtu = to.mtu;
        write(&mut self.macs, &macs);
        write(&mut self.next[..3], &mac.0);
        write(&mut self.next[3..], &to.mac);
        write(&mut self.ends, &ends);
        true
    }

    /// Whether that is what [`find`](Self::find) would find.
    #[inline(always)]
    pub fn is_of<const ENDS: usize>(
        &self,
        frame: &impl Frame,
        ifindex: u32,
        heartbeat: u64,
    ) -> bool {
        let (Some(macs), Some(ends)) = (frame.read::<12>(0), addresses::<ENDS>(frame)) else {
            return false;
        };
        self.heartbeat == heartbeat
            && self.ifindex == ifindex
            && self.protocol == protocol::<ENDS>().number()
            && are(&self.macs, &macs)
            && are(&self.ends, &ends)
    }

    /// Those of its packets.
    #[inline(always)]
    pub const fn headers<const ENDS: usize>(&self) -> Headers {
        headers::<ENDS>(Vid::new(self.vid))
    }

    /// Whether a frame of this length goes there.
    #[inline(always)]
    pub const fn takes(&self, length: usize) -> bool {
        self.to != 0 && length <= Headers::ETHERNET + self.mtu as usize
    }
}

#[inline(always)]
const fn headers<const ENDS: usize>(vid: Vid) -> Headers {
    Headers {
        vlan: Vlan::id(vid),
        cast: Cast::Unicast,
        protocol: protocol::<ENDS>(),
        network: Headers::ETHERNET,
    }
}

#[inline(always)]
const fn protocol<const ENDS: usize>() -> Protocol {
    match ENDS {
        RouteCacheEntry::IPV4 => Protocol::IPV4,
        _ => Protocol::IPV6,
    }
}

/// Source and destination (RFC 791 clause 3.1, RFC 8200 clause 3).
#[inline(always)]
fn addresses<const ENDS: usize>(frame: &impl Frame) -> Option<[u8; ENDS]> {
    let offset = match ENDS {
        RouteCacheEntry::IPV4 => 12,
        _ => 8,
    };
    frame.whole().read(Headers::ETHERNET + offset)
}

/// Whether these are the first words of those.
#[inline(always)]
fn are(words: &[u16], bytes: &[u8]) -> bool {
    let mut pairs = words.iter().zip(bytes.chunks_exact(2));
    pairs.all(|(word, pair)| *word == u16::from_ne_bytes([pair[0], pair[1]]))
}

#[inline(always)]
fn write(words: &mut [u16], bytes: &[u8]) {
    for (word, pair) in words.iter_mut().zip(bytes.chunks_exact(2)) {
        *word = u16::from_ne_bytes([pair[0], pair[1]]);
    }
}

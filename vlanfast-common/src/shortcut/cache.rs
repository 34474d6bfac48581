//! The cache of `--shortcut allow` on VLAN devices: the destination that was found for a packet is good for every other
//! with the same addresses, as long as the tables do not change.

use crate::{
    abi::{Cast, Vid, Vlan},
    frame::Frame,
    layer2::Headers,
    lookup::Lookup,
    parse::{IpVersion, ends},
    shortcut::allow::destination,
};

/// A value of the per-CPU array `SHORTCUT_CACHE`: where packets with the same addresses go that leave by the same device.
///
/// It has 80 bytes in host byte order. Addresses are words in the order of the wire, because LLVM would take bytes one
/// by one.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RouteCacheEntry {
    /// [`Settings::heartbeat`](crate::Settings::heartbeat) when it was found. The loader moves that with every change of
    /// the tables.
    heartbeat: u64,
    /// The device that the packets leave by.
    ifindex: u32,
    /// The device of the receiver's VLAN; 0 where the packets go to the router.
    pub to: u32,
    /// The VLAN of the device that the packets leave by.
    vid: u16,
    /// The EtherType of IPv4 or IPv6.
    protocol: u16,
    /// The MTU of the device of the receiver's VLAN.
    mtu: u16,
    reserved: u16,
    /// Destination and source MAC on this VLAN.
    macs: [u16; 6],
    /// Destination and source MAC on the receiver's VLAN.
    pub next: [u16; 6],
    /// Source and destination address; of IPv4, the first four words.
    ends: [u16; 16],
}

const _: () = assert!(size_of::<RouteCacheEntry>() == 80);

impl RouteCacheEntry {
    /// The number of slots. Two pairs of addresses with the same slot replace each other.
    pub const SLOTS: u32 = 256;

    /// The slot of a packet without a tag; `None` for a packet that a router would not forward.
    #[inline(always)]
    pub fn slot<V: IpVersion>(frame: &impl Frame) -> Option<u32> {
        ends(frame, &headers::<V>(Vid::UNTAGGED), Vid::UNTAGGED)?;
        // The ends of the sender's MAC and of the receiver's address: both directions hardly ever have the same two.
        let [.., a, b] = frame.source()?.0;
        let sender = u16::from_ne_bytes([a, b]) as u32;
        let addresses = V::addresses(frame)?;
        let [.., a, b] = addresses.as_ref() else {
            return None;
        };
        let receiver = u16::from_ne_bytes([*a, *b]) as u32;
        let mixed = 31 * sender + 37 * receiver;
        Some((mixed ^ mixed >> 8) % Self::SLOTS)
    }

    /// Finds where a packet goes that has a [`slot`](Self::slot) and leaves by the device of a VLAN, and writes it into
    /// this entry; whether the packet could be read. It is written in place, because BPF stacks are small.
    #[inline(always)]
    pub fn find<V: IpVersion>(
        &mut self,
        frame: &impl Frame,
        ifindex: u32,
        vid: Vid,
        heartbeat: u64,
        tables: &impl Lookup,
    ) -> bool {
        let headers = headers::<V>(vid);
        let Some((sender, receiver)) = ends(frame, &headers, vid) else {
            return false;
        };
        let (_, to, mac) = destination(frame, sender, receiver, tables).unwrap_or_default();
        let (Some(macs), Some(addresses)) = (frame.read::<12>(0), V::addresses(frame)) else {
            return false;
        };
        self.heartbeat = heartbeat;
        self.ifindex = ifindex;
        self.to = match macs[0] & 1 {
            0 => to.ifindex,
            // Everyone is to hear a group frame.
            _ => 0,
        };
        self.vid = vid.get();
        self.protocol = headers.protocol.number();
        self.mtu = to.mtu;
        write(&mut self.macs, &macs);
        write(&mut self.next[..3], &mac.0);
        write(&mut self.next[3..], &to.mac);
        write(&mut self.ends, addresses.as_ref());
        true
    }

    /// Whether the entry holds what [`find`](Self::find) would find.
    #[inline(always)]
    pub fn is_of<V: IpVersion>(&self, frame: &impl Frame, ifindex: u32, heartbeat: u64) -> bool {
        let (Some(macs), Some(addresses)) = (frame.read::<12>(0), V::addresses(frame)) else {
            return false;
        };
        self.heartbeat == heartbeat
            && self.ifindex == ifindex
            && self.protocol == V::PROTOCOL.number()
            && starts_with(&self.macs, &macs)
            && starts_with(&self.ends, addresses.as_ref())
    }

    /// The headers of the packets.
    #[inline(always)]
    pub const fn headers<V: IpVersion>(&self) -> Headers {
        headers::<V>(Vid::new(self.vid))
    }

    /// Whether a frame of this length takes the shortcut.
    #[inline(always)]
    pub const fn takes(&self, length: usize) -> bool {
        self.to != 0 && length <= Headers::ETHERNET + self.mtu as usize
    }
}

#[inline(always)]
const fn headers<V: IpVersion>(vid: Vid) -> Headers {
    Headers {
        vlan: Vlan::id(vid),
        cast: Cast::Unicast,
        protocol: V::PROTOCOL,
        network: Headers::ETHERNET,
    }
}

/// Whether words start with these bytes.
#[inline(always)]
fn starts_with(words: &[u16], bytes: &[u8]) -> bool {
    let mut pairs = words.iter().zip(bytes.chunks_exact(2));
    pairs.all(|(word, pair)| *word == u16::from_ne_bytes([pair[0], pair[1]]))
}

#[inline(always)]
fn write(words: &mut [u16], bytes: &[u8]) {
    for (word, pair) in words.iter_mut().zip(bytes.chunks_exact(2)) {
        *word = u16::from_ne_bytes([pair[0], pair[1]]);
    }
}

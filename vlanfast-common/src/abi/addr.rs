//! The two addresses of layer 2: VLAN identifiers and MAC addresses.

use core::fmt;

/// A VLAN identifier: 12 bits, IEEE 802.1Q-2022 clause 9.6.
///
/// 0 is the null VID: untagged and priority-tagged traffic. 4095 is reserved, but seen on wires.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vid(u16);

impl Vid {
    /// The null VID.
    pub const UNTAGGED: Self = Self(0);

    /// The VID of a number, of which the low 12 bits are taken: a tag has no room for more.
    #[inline(always)]
    pub const fn new(number: u16) -> Self {
        Self(number & 0x0fff)
    }

    /// The VID of a tag control information field in host byte order: PCP and DEI are masked off.
    #[inline(always)]
    pub const fn from_tci(tci: u16) -> Self {
        Self::new(tci)
    }

    /// The number, below 4096.
    #[inline(always)]
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Vid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A MAC address in the order of the wire (IEEE 802-2014 clause 8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The broadcast address.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// Packs the address into the low 48 bits of a number, the first byte lowest.
    #[inline(always)]
    pub const fn to_bits(self) -> u64 {
        let [a, b, c, d, e, f] = self.0;
        u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
    }

    /// Unpacks what [`to_bits`](Self::to_bits) made. The upper 16 bits are ignored.
    #[inline(always)]
    pub const fn from_bits(bits: u64) -> Self {
        let [a, b, c, d, e, f, _, _] = bits.to_le_bytes();
        Self([a, b, c, d, e, f])
    }

    /// The I/G bit: a group address, broadcast included.
    #[inline(always)]
    pub const fn is_group(self) -> bool {
        self.0[0] & 1 == 1
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

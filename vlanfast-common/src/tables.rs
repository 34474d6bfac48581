//! What the loader tells the datapath: who is behind the trunk, by VLAN. Keys and values of the maps
//! `VLANS`, `ENDPOINTS` and `NEIGHBORS`, all `repr(C)` without padding, numbers in host byte order.

use core::net::IpAddr;

use crate::{Mac, Vid};

/// Changes whenever the meaning of a map that outlives the process (`COUNTERS`, `SETTINGS`) does.
///
/// A map of another layout is never read: it is made anew.
pub const LAYOUT: u32 = if cfg!(feature = "next-layout") { 5 } else { 4 };

/// A value of the array `VLANS`, whose key is the VID: the device that the host has for the VLAN.
///
/// 16 bytes. Ifindex 0 is no device, whatever the flags say. The key 0 stands for the trunk itself.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parent {
    /// In the trunk's namespace.
    pub ifindex: u32,
    pub flags: u32,
    /// The device's own, in the order of the wire.
    pub mac: [u8; 6],
    /// The device's, in bytes from the network header on; no more than fits.
    pub mtu: u16,
}

impl Parent {
    /// How many VIDs there are (IEEE 802.1Q-2022 clause 9.6).
    pub const COUNT: u32 = 4096;
    /// The device is up.
    pub const UP: u32 = 1;
    /// It is the port of a bridge, a bond, a team or Open vSwitch.
    pub const PORT: u32 = 1 << 1;
    /// ipvlan devices are on it: they have its MAC, and addresses that nobody sees here.
    pub const IPVLAN: u32 = 1 << 2;
    /// A macvlan or macvtap in mode passthru or source is on it, which takes frames whatever their
    /// destination.
    pub const CATCH_ALL: u32 = 1 << 3;
    /// A VLAN device inside a container has the VID: one on top of a macvlan of the trunk, or one of
    /// the trunk's own that was moved there.
    pub const NESTED: u32 = 1 << 4;
    /// Somebody reads it in promiscuous mode, a packet capture for example.
    pub const PROMISCUOUS: u32 = 1 << 5;
    /// A macvtap is on it, or a macvlan with a bridge on top: virtual machines, say, whose addresses
    /// nobody sees from outside.
    pub const GUESTS: u32 = 1 << 6;
    /// The host and its containers on the VLAN reach each other.
    pub const HOST_ACCESS: u32 = 1 << 7;

    /// What leaves by the device meets a program of ours there: for the shortcut, the trunk need not ask again.
    pub const PROGRAM: u32 = 1 << 8;
    /// A filter with an action, or a program of someone else's, takes frames of it.
    pub const FILTERS: u32 = 1 << 9;
    /// A packet socket takes frames of one EtherType of it.
    pub const SOCKETS: u32 = 1 << 10;
    /// The kernel has a receiver on it that no namespace shows.
    pub const UNSEEN: u32 = 1 << 11;
    /// A macvlan in mode source is on it, which takes frames by their sender.
    pub const SOURCE: u32 = 1 << 12;
    /// Receivers of it found no room in `ENDPOINTS`.
    pub const LEFT_OUT: u32 = 1 << 13;
    /// Addresses of it found no room in `NEIGHBORS`, though their receivers had not used up their share.
    pub const SHORT: u32 = 1 << 14;

    /// There are receivers that the tables can't have, of any frame.
    pub const LISTENERS: u32 =
        Self::PORT | Self::IPVLAN | Self::CATCH_ALL | Self::NESTED | Self::FILTERS | Self::SOCKETS;
    /// On the trunk itself: there are receivers of tagged frames that the tables can't have. A guest's VLANs are
    /// its own.
    pub const TAGGED: u32 = Self::LISTENERS | Self::GUESTS | Self::UNSEEN | Self::SOURCE;
    /// Nothing is steered.
    pub const NO_STEER: u32 = Self::LISTENERS | Self::PROMISCUOUS;
    /// There may be receivers that the tables don't have: nothing is shed.
    pub const UNSHED: u32 = Self::NO_STEER | Self::UNSEEN | Self::SOURCE | Self::LEFT_OUT;
    /// There may be addresses that the tables don't have: no storm limit.
    pub const UNLIMITED: u32 = Self::NO_STEER | Self::GUESTS | Self::UNSEEN | Self::SHORT;

    pub const fn has(&self, flags: u32) -> bool {
        self.flags & flags != 0
    }

    /// Neither a device nor anyone else is known on the VLAN.
    #[inline(always)]
    pub const fn is_absent(&self) -> bool {
        self.ifindex | self.flags == 0
    }
}

/// A key of the hash `ENDPOINTS`: a MAC address on a VLAN. 8 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointKey {
    /// The VID; 0 for untagged traffic.
    pub vid: u16,
    /// In the order of the wire.
    pub mac: [u8; 6],
}

impl EndpointKey {
    pub const fn new(vid: Vid, mac: Mac) -> Self {
        Self {
            vid: vid.get(),
            mac: mac.0,
        }
    }

    pub const fn vid(&self) -> Vid {
        Vid::new(self.vid)
    }

    pub const fn mac(&self) -> Mac {
        Mac(self.mac)
    }
}

/// A value of the hash `ENDPOINTS`: the device that takes frames for the key. 16 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// In the namespace `nsid`.
    pub ifindex: u32,
    /// The namespace's id as the trunk's namespace knows it; [`Endpoint::OWN_NAMESPACE`] for itself.
    pub nsid: i32,
    /// The ifindex of the device below, in the trunk's namespace.
    pub parent: u32,
    /// The macvlan's mode, `enum macvlan_mode` of `include/uapi/linux/if_link.h`; 0 for a device of
    /// the host's own.
    pub mode: u16,
    pub flags: u16,
}

impl Endpoint {
    /// The namespace of the trunk.
    pub const OWN_NAMESPACE: i32 = -1;
    /// The host's own: the parent or the trunk.
    pub const HOST: u16 = 1;
    /// A macvtap.
    pub const MACVTAP: u16 = 2;
    /// Another device of the VLAN has the same MAC, or somebody on the wire; of the latter, the programs note it, too.
    pub const CONFLICT: u16 = 4;
    /// A macvlan without an address.
    pub const NO_ADDRESS: u16 = 8;
    /// It is down, and takes nothing until it is up; another with its MAC that is up has its place.
    pub const DOWN: u16 = 16;

    /// A [`mode`](Self::mode): whatever is sent goes by the switch, which sends it back.
    pub const VEPA: u16 = 2;

    pub const fn has(&self, flags: u16) -> bool {
        self.flags & flags != 0
    }

    /// Whether it is a container's, and in use, so that whoever sends with its MAC from the wire is someone else. One
    /// without an address stands by for him, as keepalived's on a backup does.
    #[inline(always)]
    pub const fn uses_its_mac(&self) -> bool {
        !self.is_of_the_host() && !self.has(Self::NO_ADDRESS | Self::DOWN)
    }

    /// The host's own, or a macvlan that it has for itself. A virtual machine is another host.
    #[inline(always)]
    pub const fn is_of_the_host(&self) -> bool {
        self.has(Self::HOST) || self.nsid == Self::OWN_NAMESPACE && !self.has(Self::MACVTAP)
    }
}

/// A key of the hash `NEIGHBORS`: an IP address on a VLAN. 20 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NeighborKey {
    /// In the order of the wire; an IPv4 address takes the first four bytes, and the rest is 0.
    pub address: [u8; 16],
    /// The VID; 0 for untagged traffic; [`NeighborKey::ANYWHERE`].
    pub vid: u16,
    /// 4 or 6; 0 of a MAC, which only `CLAIMS` has.
    pub version: u16,
}

impl NeighborKey {
    /// In place of a VID.
    pub const ANYWHERE: u16 = 4096;

    pub const fn new(vid: Vid, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::ipv4(vid, address.octets()),
            IpAddr::V6(address) => Self::ipv6(vid, address.octets()),
        }
    }

    #[inline(always)]
    pub const fn ipv4(vid: Vid, [a, b, c, d]: [u8; 4]) -> Self {
        Self {
            address: [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            vid: vid.get(),
            version: 4,
        }
    }

    #[inline(always)]
    pub const fn ipv6(vid: Vid, address: [u8; 16]) -> Self {
        Self {
            address,
            vid: vid.get(),
            version: 6,
        }
    }

    /// The key of an address that a namespace with a receiver has on another device: Linux answers for those
    /// too, on whichever VLAN it is asked.
    #[inline(always)]
    pub const fn anywhere(self) -> Self {
        Self {
            vid: Self::ANYWHERE,
            ..self
        }
    }

    /// The key in `CLAIMS` of a MAC, where somebody on the wire has that of a receiver.
    #[inline(always)]
    pub const fn of_mac(key: EndpointKey) -> Self {
        let [a, b, c, d, e, f] = key.mac;
        Self {
            address: [a, b, c, d, e, f, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            vid: key.vid,
            version: 0,
        }
    }

    /// Whose MAC it is, if it is one's.
    pub const fn receiver(&self) -> Option<EndpointKey> {
        let [a, b, c, d, e, f, ..] = self.address;
        let receiver = EndpointKey {
            vid: self.vid,
            mac: [a, b, c, d, e, f],
        };
        if self.version == 0 { Some(receiver) } else { None }
    }

    /// The VLAN of an address that is on one; [`NeighborKey::ANYWHERE`] is none.
    #[inline(always)]
    pub const fn vid(&self) -> Vid {
        Vid::new(self.vid)
    }

    /// The key of who has a MAC on the address's VLAN.
    #[inline(always)]
    pub const fn endpoint(&self, mac: [u8; 6]) -> EndpointKey {
        EndpointKey { vid: self.vid, mac }
    }

    pub fn address(&self) -> IpAddr {
        let [a, b, c, d, ..] = self.address;
        match self.version {
            4 => IpAddr::from([a, b, c, d]),
            _ => IpAddr::from(self.address),
        }
    }
}

/// A value of the hash `NEIGHBORS`: who has the address. 8 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Neighbor {
    /// In the order of the wire.
    pub mac: [u8; 6],
    pub flags: u16,
}

impl Neighbor {
    /// Its device is down: nobody answers, or another device does.
    pub const DOWN: u16 = 2;
    /// Another device of the VLAN has the same address, or the same MAC as its owner.
    pub const CONFLICT: u16 = 1;
    /// Nobody has vouched for its receiver yet: somebody on the wire may have the address.
    pub const UNSURE: u16 = 4;
    /// Somebody on the wire has said that he has it.
    pub const FOREIGN: u16 = 8;
    /// Docker has given it to its receiver: whoever else claims it is wrong.
    pub const ASSIGNED: u16 = 16;

    /// Nothing is taken to its receiver past the wire.
    pub const UNCERTAIN: u16 = Self::CONFLICT | Self::DOWN | Self::UNSURE | Self::FOREIGN;

    pub const fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    /// Whether a flag says that its receiver may not have it alone. What others say counts for nothing where Docker has
    /// given it to him.
    #[inline(always)]
    pub const fn is_doubted(&self, flags: u16) -> bool {
        let others = Self::UNSURE | Self::FOREIGN;
        self.has(flags & !others) || self.has(flags & others) && !self.has(Self::ASSIGNED)
    }
}

/// A value of the hash `CLAIMS`, whose key is an address that `NEIGHBORS` has, or the MAC of a receiver: who on the wire
/// says that he has it. 16 bytes. The programs write it, and the loader takes it out.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// When he said so last, in nanoseconds of CLOCK_MONOTONIC, to about 10 ms.
    pub heard: u64,
    /// In the order of the wire.
    pub mac: [u8; 6],
    pub reserved: u16,
}

/// A value of the hash `ROUTES`: the receiver on another VLAN of the address that a [`NeighborKey`] names on the
/// sender's. 8 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Route {
    /// The receiver's, in the order of the wire.
    pub mac: [u8; 6],
    /// The VLAN it is on; 0 for untagged traffic.
    pub vid: u16,
}

const _: () = assert!(size_of::<Parent>() == 16);
const _: () = assert!(size_of::<EndpointKey>() == 8);
const _: () = assert!(size_of::<Endpoint>() == 16);
const _: () = assert!(size_of::<NeighborKey>() == 20);
const _: () = assert!(size_of::<Neighbor>() == 8);
const _: () = assert!(size_of::<Claim>() == 16);
const _: () = assert!(size_of::<Route>() == 8);

#[cfg(feature = "user")]
mod pod {
    use super::{Claim, Endpoint, EndpointKey, Neighbor, NeighborKey, Parent, Route};

    // SAFETY: `repr(C)`, numbers and bytes alone, and the sizes above leave no room for padding.
    unsafe impl aya::Pod for Parent {}
    // SAFETY: as above.
    unsafe impl aya::Pod for EndpointKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Endpoint {}
    // SAFETY: as above.
    unsafe impl aya::Pod for NeighborKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Neighbor {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Claim {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Route {}
}

//! The endpoints on the trunk, by VLAN: the maps `VLANS`, `ENDPOINTS`, `NEIGHBORS` and `ROUTES`, which the loader keeps in
//! sync, and `CLAIMS`, which the programs write.

use core::net::IpAddr;

use bytemuck::{Pod, Zeroable};

use super::addr::{Mac, Vid};

/// A value of the array `VLANS`, whose key is the VID: the device that the host has for the VLAN.
///
/// It has 16 bytes. Ifindex 0 is no device, whatever the flags say. The key 0 stands for the trunk itself.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Parent {
    /// In the trunk's namespace.
    pub ifindex: u32,
    pub flags: u32,
    /// The device's MAC, in the order of the wire.
    pub mac: [u8; 6],
    /// The device's MTU, in bytes from the network header on; a greater one than fits is the greatest that does.
    pub mtu: u16,
}

impl Parent {
    /// How many VIDs there are (IEEE 802.1Q-2022 clause 9.6).
    pub const COUNT: u32 = 4096;
    /// The device is up.
    pub const UP: u32 = 1;
    /// The device is a port of a bridge, a bond, a team or Open vSwitch.
    pub const PORT: u32 = 1 << 1;
    /// ipvlan devices are on it, which have its MAC, and addresses that cannot be seen here.
    pub const IPVLAN: u32 = 1 << 2;
    /// A macvlan or macvtap in mode passthru is on it, which receives frames whatever their destination.
    pub const CATCH_ALL: u32 = 1 << 3;
    /// A VLAN device inside a container has the VID: one on top of a macvlan of the trunk, or one of
    /// the trunk's own that was moved there.
    pub const NESTED: u32 = 1 << 4;
    /// Somebody reads it in promiscuous mode, a packet capture for example.
    pub const PROMISCUOUS: u32 = 1 << 5;
    /// A macvtap is on it, or a macvlan with a bridge on top: virtual machines, for example, whose addresses cannot be seen
    /// from outside.
    pub const GUESTS: u32 = 1 << 6;
    /// The host and its containers on the VLAN reach each other.
    pub const HOST_ACCESS: u32 = 1 << 7;

    /// Our program for VLAN devices is attached, so the trunk's program does not look for the shortcut again.
    pub const PROGRAM: u32 = 1 << 8;
    /// A filter with an action, or another BPF program, takes frames of it.
    pub const FILTERS: u32 = 1 << 9;
    /// A packet socket receives frames of one EtherType of it.
    pub const SOCKETS: u32 = 1 << 10;
    /// The kernel has a receiver on it that no namespace shows.
    pub const UNSEEN: u32 = 1 << 11;
    /// A macvlan in mode source is on it, which receives frames by their sender.
    pub const SOURCE: u32 = 1 << 12;
    /// Endpoints of it found no room in `ENDPOINTS`.
    pub const LEFT_OUT: u32 = 1 << 13;
    /// Addresses of it found no room in `NEIGHBORS`, though their endpoints had not used up their share.
    pub const SHORT: u32 = 1 << 14;

    /// Someone receives its frames whom the tables cannot have.
    pub const LISTENERS: u32 =
        Self::PORT | Self::IPVLAN | Self::CATCH_ALL | Self::NESTED | Self::FILTERS | Self::SOCKETS;
    /// On the trunk itself, someone receives tagged frames whom the tables cannot have. A guest has VLANs of its own.
    pub const TAGGED: u32 = Self::LISTENERS | Self::GUESTS | Self::UNSEEN | Self::SOURCE;
    /// Nothing is steered.
    pub const NO_STEER: u32 = Self::LISTENERS | Self::PROMISCUOUS;
    /// The tables may lack endpoints, so nothing is shed.
    pub const UNSHED: u32 = Self::NO_STEER | Self::UNSEEN | Self::SOURCE | Self::LEFT_OUT;
    /// The tables may lack addresses, so there is no storm limit.
    pub const UNLIMITED: u32 = Self::NO_STEER | Self::GUESTS | Self::UNSEEN | Self::SHORT;

    /// Whether one of the flags is set.
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
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

/// A value of the hash `ENDPOINTS`: the device that receives frames for the key. 16 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
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
    /// A device of the host itself: the VLAN's device or the trunk.
    pub const HOST: u16 = 1;
    /// A macvtap.
    pub const MACVTAP: u16 = 2;
    /// Another device of the VLAN, or a host on the wire, has the same MAC. The programs set the flag for the latter.
    pub const CONFLICT: u16 = 4;
    /// A macvlan without an address.
    pub const NO_ADDRESS: u16 = 8;
    /// It is down, and receives nothing until it is up. Another device with its MAC that is up has the entry.
    pub const DOWN: u16 = 16;

    /// A [`mode`](Self::mode): every frame goes to the switch, which sends back what is for this host.
    pub const VEPA: u16 = 2;

    /// Whether one of the flags is set.
    pub const fn has(&self, flags: u16) -> bool {
        self.flags & flags != 0
    }

    /// Whether it is a container's and in use, so that a frame from the wire with its MAC is another host's. A macvlan
    /// without an address stands by for another host, as keepalived's on a backup does.
    #[inline(always)]
    pub const fn uses_its_mac(&self) -> bool {
        !self.is_of_the_host() && !self.has(Self::NO_ADDRESS | Self::DOWN)
    }

    /// Whether it is the host's own, or a macvlan in the host's namespace. A virtual machine is another host.
    #[inline(always)]
    pub const fn is_of_the_host(&self) -> bool {
        self.has(Self::HOST) || self.nsid == Self::OWN_NAMESPACE && !self.has(Self::MACVTAP)
    }
}

/// A key of the hash `NEIGHBORS`: an IP address on a VLAN. 20 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
pub struct NeighborKey {
    /// In the order of the wire; an IPv4 address takes the first four bytes, and the rest is 0.
    pub address: [u8; 16],
    /// The VID; 0 for untagged traffic; [`NeighborKey::ANYWHERE`].
    pub vid: u16,
    /// 4 or 6; 0 for a MAC, which only `CLAIMS` has.
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

    /// The key of an address that an endpoint's namespace has on another device. Linux answers for those too, on every
    /// VLAN.
    #[inline(always)]
    pub const fn anywhere(self) -> Self {
        Self {
            vid: Self::ANYWHERE,
            ..self
        }
    }

    /// The key in `CLAIMS` of an endpoint's MAC that a host on the wire has.
    #[inline(always)]
    pub const fn of_mac(key: EndpointKey) -> Self {
        let [a, b, c, d, e, f] = key.mac;
        Self {
            address: [a, b, c, d, e, f, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            vid: key.vid,
            version: 0,
        }
    }

    /// The endpoint whose MAC the key has; `None` for the key of an address.
    pub const fn receiver(&self) -> Option<EndpointKey> {
        let [a, b, c, d, e, f, ..] = self.address;
        let receiver = EndpointKey {
            vid: self.vid,
            mac: [a, b, c, d, e, f],
        };
        if self.version == 0 {
            Some(receiver)
        } else {
            None
        }
    }

    /// The VLAN of the address. [`NeighborKey::ANYWHERE`] is none.
    #[inline(always)]
    pub const fn vid(&self) -> Vid {
        Vid::new(self.vid)
    }

    /// The key of the endpoint with a MAC on the address's VLAN.
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

/// A value of the hash `NEIGHBORS`: the endpoint with the address. 8 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Neighbor {
    /// In the order of the wire.
    pub mac: [u8; 6],
    pub flags: u16,
}

impl Neighbor {
    /// Its device is down, so nobody answers, or another device does.
    pub const DOWN: u16 = 2;
    /// Another device of the VLAN has the same address, or the same MAC as its owner.
    pub const CONFLICT: u16 = 1;
    /// The wire has not confirmed it yet: a host there may have the address.
    pub const UNSURE: u16 = 4;
    /// A host on the wire has claimed it.
    pub const FOREIGN: u16 = 8;
    /// Docker has assigned it to its endpoint, so any other claim is wrong.
    pub const ASSIGNED: u16 = 16;

    /// Nothing reaches its endpoint without having been on the wire.
    pub const UNCERTAIN: u16 = Self::CONFLICT | Self::DOWN | Self::UNSURE | Self::FOREIGN;

    /// Whether one of the flags is set.
    pub const fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    /// Whether a flag says that its endpoint may not be the only one with the address. Claims of others do not count where
    /// Docker has assigned it.
    #[inline(always)]
    pub const fn is_doubted(&self, flags: u16) -> bool {
        let others = Self::UNSURE | Self::FOREIGN;
        self.has(flags & !others) || self.has(flags & others) && !self.has(Self::ASSIGNED)
    }
}

/// A value of the LRU hash `CLAIMS`, whose key is an address in `NEIGHBORS`, or an endpoint's MAC: the host on the wire
/// that claims it. 16 bytes. The programs write it, and the loader takes it out.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Claim {
    /// When it last claimed that, in nanoseconds of CLOCK_MONOTONIC, to about 10 ms.
    pub heard: u64,
    /// In the order of the wire.
    pub mac: [u8; 6],
    pub reserved: u16,
}

/// A value of the hash `ROUTES`, whose key is a destination address on the sender's VLAN: the endpoint on another VLAN
/// that has the address. 8 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Route {
    /// The endpoint's MAC, in the order of the wire.
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

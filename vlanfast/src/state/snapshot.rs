//! A snapshot of what netlink and Docker show at one moment, as plain data.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use vlanfast_common::{Endpoint, Mac, Vid};

use super::name::Name;

/// An interface index. It identifies a device only together with its namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ifindex(pub u32);

/// A network namespace, identified by its id (nsid) in the trunk's own namespace (`ip netns list-id`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Nsid {
    /// The trunk's namespace itself.
    Own,
    /// Another namespace with this id.
    Other(i32),
}

impl Nsid {
    /// Returns the number that identifies the namespace in the map `ENDPOINTS`.
    pub const fn number(self) -> i32 {
        match self {
            Self::Own => Endpoint::OWN_NAMESPACE,
            Self::Other(id) => id,
        }
    }
}

/// Identifies a device by namespace and index.
pub type DeviceId = (Nsid, Ifindex);

/// Everything that netlink shows: the devices of every namespace with an id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    pub namespaces: BTreeMap<Nsid, Namespace>,
    /// The receivers on the watched devices of our own namespace.
    pub receivers: BTreeMap<Ifindex, Receivers>,
}

/// The receivers on a device, from the kernel's own lists. They may be in any namespace, and they may have no device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receivers {
    /// The unicast MACs that the device accepts beside its own.
    pub unicast: BTreeSet<Mac>,
    /// The last three bytes of each solicited-node group that the device has joined (RFC 4291 clause 2.7.1), as a
    /// number.
    pub solicited: BTreeSet<u32>,
    /// A filter with an action, or a program that is not ours, is attached at its ingress.
    pub filters: bool,
    /// A packet socket receives one EtherType from it.
    pub sockets: bool,
}

impl Snapshot {
    /// Iterates over all devices with their ids.
    pub fn links(&self) -> impl Iterator<Item = (DeviceId, &Link)> {
        self.namespaces.iter().flat_map(|(&nsid, namespace)| {
            let links = namespace.links.iter();
            links.map(move |(&ifindex, link)| ((nsid, ifindex), link))
        })
    }

    /// Finds a device, and its namespace.
    pub fn find(&self, (nsid, ifindex): DeviceId) -> Option<(&Namespace, &Link)> {
        let namespace = self.namespaces.get(&nsid)?;
        Some((namespace, namespace.links.get(&ifindex)?))
    }
}

/// The devices of one namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    pub links: BTreeMap<Ifindex, Link>,
    pub addresses: BTreeMap<Ifindex, Vec<IpAddr>>,
}

/// A device. It has only the properties that matter to vlanfast.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub name: Name,
    pub mac: Mac,
    pub up: bool,
    pub mtu: u32,
    pub kind: LinkKind,
    /// The lower device (`IFLA_LINK`), in any namespace.
    pub lower: Option<DeviceId>,
    /// The device is a port of a bridge, a bond, a team or Open vSwitch.
    pub port: bool,
    pub promiscuity: Promiscuity,
    pub silence: Silence,
}

/// The addresses for which a device answers no ARP request or solicitation. A greater value hides more of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Silence {
    #[default]
    None,
    /// The device answers for no IPv4 address, because `arp_ignore` is 8.
    Ipv4,
    /// The device answers for no address, because of `ip link set arp off` (`IFF_NOARP`). Linux drops ARP requests
    /// there, and sends the answers to solicitations back to itself.
    All,
}

impl Silence {
    /// Whether the device does not answer for this address.
    pub const fn hides(self, address: IpAddr) -> bool {
        match self {
            Self::None => false,
            Self::Ipv4 => address.is_ipv4(),
            Self::All => true,
        }
    }
}

/// The users of a device's promiscuous mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Promiscuity {
    /// The number of all users (`IFLA_PROMISCUITY`).
    pub count: u32,
    /// One of them is `ip link set promisc on` (`IFF_PROMISC` as netlink shows it), which does not mean that anything
    /// reads the frames.
    pub by_hand: bool,
}

/// The kind of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// A VLAN device with 802.1Q tags.
    Vlan(Vid),
    /// A VLAN device with 802.1ad tags, whose VIDs are separate from those of 802.1Q.
    ServiceVlan,
    Macvlan(Mode),
    Macvtap(Mode),
    /// An ipvlan or ipvtap device, which has the MAC of its lower device.
    Ipvlan,
    Other,
}

/// The mode of a macvlan: `enum macvlan_mode` of `include/uapi/linux/if_link.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Mode {
    Private = 1,
    Vepa = 2,
    Bridge = 4,
    Passthru = 8,
    Source = 16,
}

impl Mode {
    /// Converts the kernel's number; `None` if it is unknown.
    pub const fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            1 => Self::Private,
            2 => Self::Vepa,
            4 => Self::Bridge,
            8 => Self::Passthru,
            16 => Self::Source,
            _ => return None,
        })
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Private => "private",
            Self::Vepa => "vepa",
            Self::Bridge => "bridge",
            Self::Passthru => "passthru",
            Self::Source => "source",
        })
    }
}

/// The names that Docker has for what netlink shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Docker {
    /// The macvlan networks by their ids.
    pub networks: BTreeMap<String, DockerNetwork>,
    pub containers: Vec<Container>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DockerNetwork {
    pub name: String,
    /// The option `parent`: the name of the lower device, in the host's namespace.
    pub parent: Option<String>,
}

/// A container that is running or paused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    pub name: String,
    /// The labels `com.docker.compose.project` and `com.docker.compose.service`.
    pub project: Option<String>,
    pub service: Option<String>,
    pub attachments: Vec<DockerAttachment>,
}

/// A container's attachment to a network, as Docker recorded it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DockerAttachment {
    /// The id of the network. It is a key of [`Docker::networks`] if the network is a macvlan.
    pub network: String,
    pub mac: Option<Mac>,
    pub addresses: Vec<IpAddr>,
}

//! A snapshot of what netlink and Docker show at one moment, as plain data.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use vlanfast_common::{Endpoint, Mac, Vid};

use super::name::Name;

/// An interface index. It means a device only together with its namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ifindex(pub u32);

/// A network namespace, by the id under which the trunk's own namespace knows it (`ip netns list-id`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Nsid {
    /// The trunk's namespace itself.
    Own,
    /// Another one.
    Other(i32),
}

impl Nsid {
    /// As the map `ENDPOINTS` has it.
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
    /// What receives on devices of our own namespace, of those that were asked about.
    pub receivers: BTreeMap<Ifindex, Receivers>,
}

/// What receives on a device, by the kernel's own lists: in whichever namespace it is, and with a device or without.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receivers {
    /// The MACs that the device takes beside its own.
    pub unicast: BTreeSet<Mac>,
    /// The last bytes of the solicited-node groups that it takes (RFC 4291 clause 2.7.1), as a number.
    pub solicited: BTreeSet<u32>,
    /// A filter with an action, or a program of someone else's, is at its ingress.
    pub filters: bool,
    /// A packet socket takes one EtherType of it.
    pub sockets: bool,
}

impl Snapshot {
    /// Every device, with its place.
    pub fn links(&self) -> impl Iterator<Item = (DeviceId, &Link)> {
        self.namespaces.iter().flat_map(|(&nsid, namespace)| {
            let links = namespace.links.iter();
            links.map(move |(&ifindex, link)| ((nsid, ifindex), link))
        })
    }

    /// A device, with its namespace.
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

/// A device, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub name: Name,
    pub mac: Mac,
    pub up: bool,
    pub mtu: u32,
    pub kind: LinkKind,
    /// The device below (`IFLA_LINK`), in whichever namespace it is.
    pub lower: Option<DeviceId>,
    /// It is a port of a bridge, a bond, a team or Open vSwitch.
    pub port: bool,
    pub promiscuity: Promiscuity,
    pub silence: Silence,
}

/// Of which addresses a device tells nobody that it has them; the greater hides more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Silence {
    #[default]
    None,
    /// IPv4's: `arp_ignore` is 8, which means neither its own nor another device's.
    Ipv4,
    /// All: `ip link set arp off` (`IFF_NOARP`). Linux drops ARP requests there, and answers solicitations to itself.
    All,
}

impl Silence {
    /// Whether the device keeps this address to itself.
    pub const fn hides(self, address: IpAddr) -> bool {
        match self {
            Self::None => false,
            Self::Ipv4 => address.is_ipv4(),
            Self::All => true,
        }
    }
}

/// How many have put a device into promiscuous mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Promiscuity {
    /// All together (`IFLA_PROMISCUITY`).
    pub count: u32,
    /// One of them is `ip link set promisc on` (`IFF_PROMISC` as netlink shows it): nobody in
    /// particular, who need not read anything.
    pub by_hand: bool,
}

/// What a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// An 802.1Q device.
    Vlan(Vid),
    /// An 802.1ad device, whose VIDs are another number space.
    ServiceVlan,
    Macvlan(Mode),
    Macvtap(Mode),
    /// An ipvlan or an ipvtap: it has the MAC of the device below.
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
    /// Reads the kernel's number; `None` for one that this version does not know.
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

/// What Docker shows: names for what netlink found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Docker {
    /// The macvlan networks, by id.
    pub networks: BTreeMap<String, DockerNetwork>,
    pub containers: Vec<Container>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DockerNetwork {
    pub name: String,
    /// The option `parent`: the name of the device below, in the host's namespace.
    pub parent: Option<String>,
}

/// A container that runs or is paused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    pub name: String,
    /// Labels `com.docker.compose.project` and `com.docker.compose.service`.
    pub project: Option<String>,
    pub service: Option<String>,
    pub attachments: Vec<DockerAttachment>,
}

/// A container's place in one network, as Docker believes it to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DockerAttachment {
    /// A key of [`Docker::networks`], or a network that is no macvlan.
    pub network: String,
    pub mac: Option<Mac>,
    pub addresses: Vec<IpAddr>,
}

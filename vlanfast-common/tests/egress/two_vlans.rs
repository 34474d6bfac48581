//! Two VLANs whose stations, MACs and addresses are known by numbers.

use std::collections::BTreeMap;

use proptest::prelude::*;
use vlanfast_common::{
    Buckets, Claim, Endpoint, EndpointKey, Flow, FlowKey, Lookup, Neighbor, NeighborKey, Parent,
    Policy, Route, Settings, Shed, Switches, Vid, VlanPair, VlanPairCounters,
};

const VLANS: [u16; 2] = [0, 10];
/// Stations that may be here; each has the address of its number, as a rule.
pub const STATIONS: u8 = 5;
/// An address that ends at the link.
pub const LINK_LOCAL: u8 = 5;
/// A station that is never here.
pub const ROUTER: u8 = 9;

pub fn mac(number: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, number]
}

pub fn ipv4(number: u8) -> [u8; 4] {
    match number {
        LINK_LOCAL => [169, 254, 0, number],
        _ => [10, 0, 0, number],
    }
}

pub fn ipv6(number: u8) -> [u8; 16] {
    let mut address = [0; 16];
    address[..2].copy_from_slice(match number {
        LINK_LOCAL => &[0xfe, 0x80],
        _ => &[0xfd, 0],
    });
    address[15] = number;
    address
}

/// An address by VLAN, version and number.
type Address = (u16, u16, u8);

fn number((vid, version, number): Address) -> NeighborKey {
    let vid = Vid::new(vid);
    match version {
        4 => NeighborKey::ipv4(vid, ipv4(number)),
        _ => NeighborKey::ipv6(vid, ipv6(number)),
    }
}

/// Who a station is.
#[derive(Clone, Copy, Debug)]
pub enum Role {
    /// The VLAN's device, or the trunk.
    Host,
    /// A macvlan in the host's own namespace.
    Shim,
    Container,
    /// A macvtap in the host's own namespace: a virtual machine.
    Guest,
}

impl Role {
    pub const fn is_of_the_host(self) -> bool {
        matches!(self, Self::Host | Self::Shim)
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Station {
    pub role: Role,
    /// Another has its MAC.
    pub has_twin: bool,
    /// It has no address.
    pub is_silent: bool,
}

/// The stations of both VLANs, and what the tables and the wire say of them.
#[derive(Debug)]
pub struct TwoVlans {
    pub policy: Policy,
    settings: Option<Settings>,
    pub parents: BTreeMap<u16, Parent>,
    pub stations: BTreeMap<(u16, u8), Station>,
    /// The station that has an address, and flags of [`Neighbor`].
    pub owners: BTreeMap<Address, (u8, u16)>,
    /// The station that says on the wire that it has an address.
    pub claims: BTreeMap<Address, u8>,
    /// The station that has an address on another VLAN, and that VLAN.
    pub routes: BTreeMap<Address, (u8, u16)>,
}

impl TwoVlans {
    pub fn is_alive(&self) -> bool {
        self.settings
            .is_some_and(|settings| settings.heartbeat > self.now())
    }

    pub fn lacks_endpoints(&self) -> bool {
        self.settings
            .is_some_and(|settings| settings.incomplete & Settings::ENDPOINTS != 0)
    }
}

impl Switches for TwoVlans {
    fn policy<T: Copy>(&self, field: impl FnOnce(&Policy) -> &T) -> T {
        self.policy.policy(field)
    }
}

impl Lookup for TwoVlans {
    fn parent(&self, vid: Vid) -> Parent {
        self.parents.get(&vid.get()).copied().unwrap_or_default()
    }

    fn endpoint(&self, key: EndpointKey) -> Option<Endpoint> {
        let [start @ .., last] = key.mac;
        let station = self.stations.get(&(key.vid, last))?;
        let (nsid, flags) = match station.role {
            Role::Host => (Endpoint::OWN_NAMESPACE, Endpoint::HOST),
            Role::Shim => (Endpoint::OWN_NAMESPACE, 0),
            Role::Container => (3, 0),
            Role::Guest => (Endpoint::OWN_NAMESPACE, Endpoint::MACVTAP),
        };
        let flag = |is_set, flag| if is_set { flag } else { 0 };
        (start == [2, 0, 0, 0, 0]).then_some(Endpoint {
            nsid,
            flags: flags
                | flag(station.has_twin, Endpoint::CONFLICT)
                | flag(station.is_silent, Endpoint::NO_ADDRESS),
            ..Endpoint::default()
        })
    }

    fn neighbor(&self, key: NeighborKey) -> Option<Neighbor> {
        let address = (key.vid, key.version, key.address[last(key)]);
        let &(owner, flags) = self.owners.get(&address)?;
        (key == number(address)).then_some(Neighbor {
            mac: mac(owner),
            flags,
        })
    }

    fn route(&self, key: NeighborKey) -> Option<Route> {
        let address = (key.vid, key.version, key.address[last(key)]);
        let &(receiver, vid) = self.routes.get(&address)?;
        (key == number(address)).then_some(Route {
            mac: mac(receiver),
            vid,
        })
    }

    fn flow(&self, _key: &FlowKey) -> Option<&Flow> {
        None
    }

    fn open_flow(&self, _key: &FlowKey) -> Option<&Flow> {
        None
    }

    fn forget_flow(&self, _key: &FlowKey) {}

    fn pair(&self, _key: VlanPair) -> Option<&VlanPairCounters> {
        None
    }

    fn claim(&self, key: NeighborKey) -> Option<Claim> {
        let address = (key.vid, key.version, key.address[last(key)]);
        self.claims.get(&address).map(|&number| Claim {
            mac: mac(number),
            ..Claim::default()
        })
    }

    fn note_claim(&self, _key: NeighborKey, _claim: Claim) {}

    fn mark_conflict(&self, _key: EndpointKey) {}

    fn buckets(&self, _vid: Vid) -> Option<&Buckets> {
        None
    }

    fn settings(&self) -> Option<&Settings> {
        self.settings.as_ref()
    }

    fn now(&self) -> u64 {
        1_500
    }

    fn exact_now(&self) -> u64 {
        self.now()
    }
}

/// Where the number of an address is in it.
const fn last(key: NeighborKey) -> usize {
    if key.version == 4 { 3 } else { 15 }
}

pub fn vlan() -> impl Strategy<Value = u16> + Clone {
    prop::sample::select(&VLANS[..])
}

fn any_settings() -> impl Strategy<Value = Settings> {
    let heartbeat = prop_oneof![8 => Just(2_000u64), 1 => Just(1_500), 1 => Just(0)];
    let settings = (heartbeat, prop_oneof![8 => Just(0), 2 => 0..8u32]);
    settings.prop_map(|(heartbeat, incomplete)| Settings {
        heartbeat,
        incomplete,
        ..Settings::default()
    })
}

fn any_parent(vid: u16) -> impl Strategy<Value = (u16, Parent)> {
    let flags = prop_oneof![8 => Just(Parent::UP | Parent::HOST_ACCESS), 2 => any::<u32>()];
    let ifindex = prop_oneof![9 => Just(3), 1 => Just(0)];
    let parent = (ifindex, flags, prop_oneof![Just(80), Just(1500)]);
    parent.prop_map(move |(ifindex, flags, mtu)| {
        let parent = Parent {
            ifindex,
            flags,
            mac: [2, 0, 0, 0, 1, vid as u8],
            mtu,
        };
        (vid, parent)
    })
}

impl TwoVlans {
    /// Adds stations, addresses, claims and routes, each by a byte of chance; `None` leaves it out.
    fn fill(&mut self, mut chance: impl FnMut() -> Option<u8>) {
        for vid in VLANS {
            let present = |number| Some(((vid, number), station(chance()?)));
            self.stations.extend((0..STATIONS).filter_map(present));
            for version in [4, 6] {
                for number in 0..=LINK_LOCAL {
                    let address = (vid, version, number);
                    let owner = chance().map(|chance| owner(number, chance));
                    self.owners.extend(owner.map(|owner| (address, owner)));
                    let claimant = chance().filter(|chance| chance % 8 == 0);
                    self.claims
                        .extend(claimant.map(|chance| (address, chance / 8 % 16)));
                    let route = chance().map(|chance| route(address, chance));
                    self.routes.extend(route.map(|route| (address, route)));
                }
            }
        }
    }
}

/// Any two VLANs: a random byte decides over each station, address and route, and a small one leaves it out.
pub fn any_two_vlans() -> impl Strategy<Value = TwoVlans> {
    let shed = prop_oneof![Just(Shed::Off), Just(Shed::Vlan), Just(Shed::Mac)];
    let policy = (
        prop::bool::weighted(0.9),
        prop::bool::weighted(0.8),
        shed,
        any::<(bool, bool)>(),
    );
    let chances = prop::collection::vec(any::<u8>(), 128);
    (
        policy,
        prop::option::weighted(0.95, any_settings()),
        VLANS.map(any_parent),
        chances,
    )
        .prop_map(|(policy, settings, parents, chances)| {
            let (host_access, shortcut, shed, (steer, deliver)) = policy;
            let mut chances = chances.into_iter();
            let chance = || chances.next().filter(|chance| *chance >= 30);
            let mut vlans = TwoVlans {
                policy: Policy {
                    host_access: host_access.into(),
                    shortcut: shortcut.into(),
                    shed: shed as u32,
                    steer: steer.into(),
                    deliver: deliver.into(),
                    storm_limit: 1,
                    group_limit: 1,
                    ..Policy::default()
                },
                settings,
                parents: parents.into(),
                stations: BTreeMap::new(),
                owners: BTreeMap::new(),
                claims: BTreeMap::new(),
                routes: BTreeMap::new(),
            };
            vlans.fill(chance);
            vlans
        })
}

const fn station(chance: u8) -> Station {
    Station {
        role: match chance % 8 {
            0 | 1 => Role::Host,
            2 => Role::Shim,
            3 => Role::Guest,
            _ => Role::Container,
        },
        has_twin: (chance / 8).is_multiple_of(10),
        is_silent: chance / 8 % 10 == 1,
    }
}

/// An address is the station's of that number, as a rule, and the link-local one the first's.
const fn receiver(number: u8, chance: u8) -> u8 {
    match chance % 8 {
        0 => chance / 8 % STATIONS,
        _ => number % STATIONS,
    }
}

const fn owner(number: u8, chance: u8) -> (u8, u16) {
    let flags = match chance / 8 % 16 {
        0 => Neighbor::CONFLICT,
        1 => Neighbor::DOWN,
        2 => Neighbor::UNSURE,
        3 => Neighbor::FOREIGN,
        4 => Neighbor::FOREIGN | Neighbor::UNSURE | Neighbor::ASSIGNED,
        _ => 0,
    };
    (receiver(number, chance), flags)
}

/// It leads to the other VLAN, as a rule.
const fn route((vid, _, number): Address, chance: u8) -> (u8, u16) {
    let [one, other] = VLANS;
    let is_strange = (chance / 8).is_multiple_of(8);
    let to = if (vid == one) != is_strange {
        other
    } else {
        one
    };
    (receiver(number, chance), to)
}

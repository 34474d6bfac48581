//! A trunk with receivers as the tables describe it, for the host's run of the packet logic and for the
//! kernel's.

mod tables;

use std::{
    array,
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    sync::atomic::Ordering::Relaxed,
};

use anyhow::{Context, Result};
use aya::{
    Ebpf,
    maps::{Array, HashMap, Map},
};
use vlanfast_common::{
    Buckets, Claim, Endpoint, EndpointKey, Flow, FlowKey, Mac, Neighbor, NeighborKey, VlanPairCounters,
    VlanPair, Parent, Policy, Route, Settings, Vid,
};

use crate::messages::NOBODY;

pub const CONTAINER: [u8; 6] = [0x02, 0, 0, 0, 1, 2];
pub const TRUNK: [u8; 6] = [0x02, 0, 0, 0, 0, 0x0a];
/// The MACs of VLAN devices that have one of their own, for 10 and [`GUESTS`].
pub const PARENT: [u8; 6] = [0x02, 0, 0, 0, 0, 0x10];
pub const FAR_PARENT: [u8; 6] = [0x02, 0, 0, 0, 0, 0x30];
/// Another container's on VLAN 10.
pub const SIBLING: [u8; 6] = [0x02, 0, 0, 0, 1, 3];
/// A MAC that two containers have.
pub const TWICE: [u8; 6] = [0x02, 0, 0, 0, 1, 9];
/// A macvlan's on VLAN 10 that has no address.
pub const STANDBY: [u8; 6] = [0, 0, 0x5e, 0, 1, 1];
/// A macvlan's on some VLANs that is in the host's own namespace.
pub const SHIM: [u8; 6] = [0x02, 0, 0, 0, 1, 0x20];
/// A macvtap's on the VLAN [`GUESTS`], in the same.
pub const TAP: [u8; 6] = [0x02, 0, 0, 0, 1, 0x21];
/// The MAC that a device of ours has since a moment ago.
pub const NEW: [u8; 6] = [0x02, 0, 0, 0, 1, 0x30];
/// The host's addresses on VLAN 10; fd00::1:fa.
pub const HOST: [u8; 4] = [10, 0, 10, 250];
pub const HOST6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0xfa];
/// The container's there that the wire has, that nobody has vouched for, and that are both and Docker's.
pub const FOREIGN: [u8; 4] = [10, 0, 10, 67];
pub const UNSURE: [u8; 4] = [10, 0, 10, 68];
pub const ASSIGNED: [u8; 4] = [10, 0, 10, 69];
/// Those claimed by the wire, and by somebody who is here by now.
pub const CLAIMED: [u8; 4] = [10, 0, 10, 70];
pub const MOVED: [u8; 4] = [10, 0, 10, 71];

/// VLANs beside two ordinary ones, 0 and 10: one whose device is a bridge's port; one with virtual machines; one that
/// only a container knows; one whose device is down.
pub const PORT: u16 = 20;
pub const GUESTS: u16 = 30;
pub const NESTED: u16 = 40;
pub const DOWN: u16 = 50;

/// What the programs are told, and the state of everything that they look at.
#[derive(Debug, Default)]
pub struct World {
    pub policy: Policy,
    pub settings: Settings,
    /// The hook is one that can redirect.
    pub redirects: bool,
    vlans: BTreeMap<Vid, Parent>,
    endpoints: BTreeMap<EndpointKey, Endpoint>,
    neighbors: BTreeMap<NeighborKey, Neighbor>,
    routes: BTreeMap<NeighborKey, Route>,
    buckets: Buckets,
    pub claims: RefCell<BTreeMap<NeighborKey, Claim>>,
    /// The receivers that were found to have a MAC which somebody on the wire has.
    pub doubles: RefCell<BTreeSet<EndpointKey>>,
    flows: Kept<FlowKey, Flow>,
    pairs: Kept<VlanPair, VlanPairCounters>,
    /// In nanoseconds.
    pub now: Cell<u64>,
}

/// A table that the programs write. Entries stay in memory for ever.
type Kept<K, V> = RefCell<BTreeMap<K, &'static V>>;

impl World {
    /// Nobody is there, and the heartbeat is good for ever.
    pub fn nobody(policy: Policy) -> Self {
        Self {
            policy,
            settings: Settings {
                heartbeat: u64::MAX,
                ..Settings::default()
            },
            now: Cell::new(1_000_000_000_000),
            redirects: true,
            ..Self::default()
        }
    }

    /// Everybody is there.
    pub fn new(policy: Policy) -> Result<Self> {
        let mut world = Self::nobody(policy);
        world.add_parents();
        world.add_endpoints()?;
        world.add_neighbors()?;
        world.add_routes()?;
        Ok(world)
    }

    fn add_parents(&mut self) {
        for (vid, ifindex, flags) in [
            // Numbers that no device has.
            (0, 1_000_002, Parent::UP),
            (10, 1_000_003, Parent::UP | Parent::HOST_ACCESS),
            (PORT, 1_000_004, Parent::UP | Parent::PORT),
            (GUESTS, 1_000_005, Parent::UP | Parent::GUESTS),
            (NESTED, 0, Parent::NESTED),
            (DOWN, 1_000_006, 0),
        ] {
            let parent = Parent {
                ifindex,
                flags,
                mac: match vid {
                    0 => TRUNK,
                    GUESTS => FAR_PARENT,
                    _ => PARENT,
                },
                mtu: if vid == GUESTS { 1400 } else { 1500 },
            };
            self.vlans.insert(Vid::new(vid), parent);
        }
    }

    fn add_endpoints(&mut self) -> Result<()> {
        self.receiver(0, TRUNK, Endpoint::HOST, &["192.0.2.1", "fe80::a"])?;
        self.receiver(10, PARENT, Endpoint::HOST, &["10.0.10.250", "fd00::1:fa"])?;
        // As everywhere: a VLAN device takes what is for the trunk's MAC.
        self.receiver(10, TRUNK, Endpoint::HOST, &[])?;
        self.receiver(10, SIBLING, 0, &["10.0.10.3"])?;
        self.receiver(10, TWICE, Endpoint::CONFLICT, &[])?;
        self.receiver(10, STANDBY, Endpoint::NO_ADDRESS, &[])?;
        for (vid, mac, ifindex, flags) in [
            (10, SHIM, 7, 0),
            (0, SHIM, 7, 0),
            (PORT, SHIM, 7, 0),
            (NESTED, SHIM, 7, 0),
            (DOWN, SHIM, 7, 0),
            (GUESTS, SHIM, 7, Endpoint::CONFLICT),
            (GUESTS, TAP, 8, Endpoint::MACVTAP),
        ] {
            let here = Endpoint {
                ifindex,
                nsid: Endpoint::OWN_NAMESPACE,
                flags,
                ..Endpoint::default()
            };
            let key = EndpointKey::new(Vid::new(vid), Mac(mac));
            self.endpoints.insert(key, here);
        }
        for vid in [0, 10, PORT, GUESTS] {
            self.receiver(vid, CONTAINER, 0, &["10.0.10.2", "fd00::1:2"])?;
        }
        Ok(())
    }

    /// The addresses that do not lead to their receivers for sure, and what the wire says of some.
    fn add_neighbors(&mut self) -> Result<()> {
        let elsewhere = NeighborKey::new(Vid::UNTAGGED, "10.0.10.77".parse()?).anywhere();
        self.neighbors.insert(elsewhere, Neighbor::default());
        for (address, flags) in [
            ([10, 0, 10, 78], Neighbor::DOWN),
            ([10, 0, 10, 66], Neighbor::CONFLICT),
            (FOREIGN, Neighbor::FOREIGN),
            (UNSURE, Neighbor::UNSURE),
            (
                ASSIGNED,
                Neighbor::FOREIGN | Neighbor::UNSURE | Neighbor::ASSIGNED,
            ),
            (CLAIMED, 0),
            (MOVED, 0),
        ] {
            let key = NeighborKey::ipv4(Vid::new(10), address);
            let neighbor = Neighbor {
                mac: CONTAINER,
                flags,
            };
            self.neighbors.insert(key, neighbor);
        }
        for (address, mac) in [(ASSIGNED, NOBODY), (CLAIMED, NOBODY), (MOVED, SIBLING)] {
            let key = NeighborKey::ipv4(Vid::new(10), address);
            let claims = self.claims.get_mut();
            claims.entry(key).or_default().mac = mac;
        }
        Ok(())
    }

    fn add_routes(&mut self) -> Result<()> {
        for address in ["10.0.30.2", "fd00:30::2"] {
            let route = Route {
                mac: CONTAINER,
                vid: GUESTS,
            };
            let key = NeighborKey::new(Vid::new(10), address.parse()?);
            self.routes.insert(key, route);
        }
        for address in ["10.0.10.2", "fd00::1:2"] {
            let back = Route {
                mac: CONTAINER,
                vid: 10,
            };
            for vid in [GUESTS, NESTED] {
                let key = NeighborKey::new(Vid::new(vid), address.parse()?);
                self.routes.insert(key, back);
            }
        }
        // By the router's word, whoever asks.
        for (address, vid) in [
            ("10.0.10.2", 10),
            ("fd00::1:2", 10),
            ("10.0.30.2", GUESTS),
            ("fd00:30::2", GUESTS),
        ] {
            let route = Route {
                mac: CONTAINER,
                vid,
            };
            let key = NeighborKey::new(Vid::UNTAGGED, address.parse()?);
            self.routes.insert(key.anywhere(), route);
        }
        // Its device has gone.
        let nowhere = NeighborKey::new(Vid::new(10), "10.0.40.2".parse()?);
        let route = Route {
            mac: CONTAINER,
            vid: NESTED,
        };
        self.routes.insert(nowhere, route);
        Ok(())
    }

    /// The same with untagged traffic in VLAN 10's place, for what needs no router.
    pub fn untagged(mut self) -> Self {
        let instead = |vid| if vid == 10 { 0 } else { vid };
        let moved = self.routes.into_iter().map(|(key, route)| {
            let key = NeighborKey {
                vid: instead(key.vid),
                ..key
            };
            let route = Route {
                vid: instead(route.vid),
                ..route
            };
            (key, route)
        });
        self.routes = moved.collect();
        self
    }

    fn receiver(&mut self, vid: u16, mac: [u8; 6], flags: u16, addresses: &[&str]) -> Result<()> {
        let vid = Vid::new(vid);
        let endpoint = Endpoint {
            ifindex: 7,
            flags,
            ..Endpoint::default()
        };
        let key = EndpointKey::new(vid, Mac(mac));
        self.endpoints.insert(key, endpoint);
        for address in addresses {
            let neighbor = Neighbor { mac, flags: 0 };
            let key = NeighborKey::new(vid, address.parse()?);
            self.neighbors.insert(key, neighbor);
        }
        Ok(())
    }

    /// What was counted of flows between VLANs, in the order of the fields.
    pub fn pairs(&self) -> BTreeMap<VlanPair, [u64; 6]> {
        let words = |pair: &VlanPairCounters| {
            let counts = [&pair.candidates, &pair.enabled, &pair.packets];
            let more = [&pair.bytes, &pair.refreshes, &pair.failures];
            let mut counts = counts.into_iter().chain(more);
            array::from_fn(|_| counts.next().map_or(0, |count| count.load(Relaxed)))
        };
        let pairs = self.pairs.borrow();
        pairs
            .iter()
            .map(|(key, pair)| (*key, words(pair)))
            .collect()
    }

    /// The same for the kernel.
    pub fn install(&self, ebpf: &mut Ebpf) -> Result<()> {
        let mut vlans = Array::<_, Parent>::try_from(map(ebpf, "VLANS")?)?;
        for (vid, parent) in &self.vlans {
            vlans.set(vid.get().into(), parent, 0)?;
        }
        let mut endpoints = HashMap::<_, EndpointKey, Endpoint>::try_from(map(ebpf, "ENDPOINTS")?)?;
        for (key, endpoint) in &self.endpoints {
            endpoints.insert(key, endpoint, 0)?;
        }
        let mut neighbors = HashMap::<_, NeighborKey, Neighbor>::try_from(map(ebpf, "NEIGHBORS")?)?;
        for (key, neighbor) in &self.neighbors {
            neighbors.insert(key, neighbor, 0)?;
        }
        let mut claims = HashMap::<_, NeighborKey, Claim>::try_from(map(ebpf, "CLAIMS")?)?;
        for (key, claim) in self.claims.borrow().iter() {
            claims.insert(key, claim, 0)?;
        }
        if self.policy.shortcut != 0 {
            let mut routes = HashMap::<_, NeighborKey, Route>::try_from(map(ebpf, "ROUTES")?)?;
            for (key, route) in &self.routes {
                routes.insert(key, route, 0)?;
            }
        }
        Array::<_, Settings>::try_from(map(ebpf, "SETTINGS")?)?.set(0, self.settings, 0)?;
        Ok(())
    }
}

fn map<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Map> {
    ebpf.map_mut(name).with_context(|| format!("no map {name}"))
}

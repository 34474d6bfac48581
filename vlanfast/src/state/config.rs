//! The configuration per VLAN (`--host-access`, `--shortcut`), applied to the tables computed from the network.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use vlanfast_common::{Endpoint, EndpointKey, Neighbor, NeighborKey, Parent, Route, Vid};

use crate::state::{
    tables::DesiredTables,
    vids::{VidPair, Vids},
};

/// The configuration of all VLANs.
#[derive(Clone, Debug, Default)]
pub struct VlanConfig {
    /// The VLANs on which the host and its containers can reach each other directly.
    pub host_access: Vids,
    /// The VLANs between which packets can bypass the router.
    pub routes: Routes,
}

/// The VLANs between which packets for a router may take the shortcut.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Routes {
    #[default]
    None,
    /// Packets may take the shortcut between these pairs of VLANs.
    Between(Vec<VidPair>),
    /// Packets may take the shortcut to every container on a VLAN.
    Everywhere,
}

impl VlanConfig {
    /// Whether frames for the endpoints of a VLAN may be delivered without the wire, so that it matters who owns an
    /// address there.
    pub fn need_owners(&self, vid: Vid) -> bool {
        self.host_access.contains(vid)
            || match &self.routes {
                Routes::None => false,
                Routes::Between(pairs) => pairs.iter().any(|VidPair(a, b)| *a == vid || *b == vid),
                Routes::Everywhere => vid != Vid::UNTAGGED,
            }
    }

    pub fn write(&self, tables: &mut DesiredTables) {
        let is_container =
            |(_, endpoint): &(&EndpointKey, &Endpoint)| !endpoint.has(Endpoint::HOST);
        let containers = tables.endpoints.iter().filter(is_container);
        let with_containers: BTreeSet<u16> = containers.map(|(key, _)| key.vid).collect();
        for (&vid, parent) in &mut tables.vlans {
            let has_both = parent.ifindex != 0 && with_containers.contains(&vid.get());
            if self.host_access.contains(vid) && has_both && !parent.has(Parent::LISTENERS) {
                parent.flags |= Parent::HOST_ACCESS;
            }
        }
        tables.routes = self.routes(tables);
    }

    /// Computes the routes to the containers of other VLANs.
    fn routes(&self, tables: &DesiredTables) -> BTreeMap<NeighborKey, Route> {
        if self.routes == Routes::None {
            return BTreeMap::new();
        }
        let mut owners = BTreeMap::<IpAddr, usize>::new();
        for (key, neighbor) in &tables.neighbors {
            // An entry with a MAC is that of an endpoint, which also has the address on its own VLAN.
            let is_anothers = key.vid == NeighborKey::ANYWHERE && neighbor.mac != [0; 6];
            *owners.entry(key.address()).or_default() += usize::from(!is_anothers);
        }
        let is_heard_by_others = |vid: u16| {
            let parent = tables.vlans.get(&Vid::new(vid));
            parent.is_some_and(|parent| parent.has(Parent::LISTENERS))
        };
        let mut routes = BTreeMap::new();
        for (key, neighbor) in &tables.neighbors {
            let address = key.address();
            // If an address is on two VLANs, only the router knows which of them is meant.
            let is_sure = is_certain(tables, key, neighbor) && owners.get(&address) == Some(&1);
            if !is_sure || is_local(address) || is_heard_by_others(key.vid) {
                continue;
            }
            let route = Route {
                mac: neighbor.mac,
                vid: key.vid,
            };
            routes.extend(self.routes.keys(*key).into_iter().map(|key| (key, route)));
        }
        routes
    }
}

impl Routes {
    /// Returns the keys under which the datapath looks up an address.
    fn keys(&self, address: NeighborKey) -> Vec<NeighborKey> {
        let pairs = match self {
            Self::Between(pairs) => pairs,
            // Untagged frames would come back to the trunk itself.
            Self::Everywhere if address.vid != Vid::UNTAGGED.get() => {
                return vec![address.anywhere()];
            }
            Self::None | Self::Everywhere => return vec![],
        };
        let other = |&VidPair(one, other)| match address.vid {
            vid if vid == one.get() => Some(other.get()),
            vid if vid == other.get() => Some(one.get()),
            _ => None,
        };
        let senders = pairs.iter().filter_map(other);
        senders.map(|vid| NeighborKey { vid, ..address }).collect()
    }
}

/// Whether an address certainly leads to one container.
fn is_certain(tables: &DesiredTables, key: &NeighborKey, neighbor: &Neighbor) -> bool {
    let endpoint = tables.endpoints.get(&key.endpoint(neighbor.mac));
    let is_container = endpoint
        .is_some_and(|endpoint| !endpoint.is_of_the_host() && !endpoint.has(Endpoint::CONFLICT));
    is_container && !neighbor.has(Neighbor::UNCERTAIN)
}

/// Whether an address is link-local (RFC 3927, RFC 4291 clause 2.5.6).
fn is_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use vlanfast_common::Mac;

    use super::*;

    fn vid(number: u16) -> Vid {
        Vid::new(number)
    }

    /// Adds an endpoint with an address.
    fn add(tables: &mut DesiredTables, number: u16, last: u8, address: &str, flags: (u16, u16)) {
        let mac = [2, 0, 0, 0, 0, last];
        let endpoint = Endpoint {
            flags: flags.0,
            ..Endpoint::default()
        };
        let key = EndpointKey::new(vid(number), Mac(mac));
        tables.endpoints.insert(key, endpoint);
        let key = NeighborKey::new(vid(number), address.parse().unwrap());
        let neighbor = Neighbor {
            mac,
            flags: flags.1,
        };
        tables.neighbors.insert(key, neighbor);
    }

    fn routes(tables: &mut DesiredTables, pairs: &[&str]) -> Vec<(u16, String, u16, u8)> {
        let config = VlanConfig {
            routes: match pairs {
                [] => Routes::None,
                ["everywhere"] => Routes::Everywhere,
                pairs => Routes::Between(pairs.iter().map(|pair| pair.parse().unwrap()).collect()),
            },
            ..VlanConfig::default()
        };
        config.write(tables);
        let row = |(key, route): (&NeighborKey, &Route)| {
            (key.vid, key.address().to_string(), route.vid, route.mac[5])
        };
        tables.routes.iter().map(row).collect()
    }

    #[test]
    fn containers_of_a_pair_are_known_on_the_other_vlan() {
        let mut tables = DesiredTables::default();
        add(&mut tables, 10, 1, "10.0.10.2", (0, 0));
        add(&mut tables, 20, 2, "10.0.20.2", (0, 0));
        add(&mut tables, 20, 3, "fd00:20::2", (Endpoint::MACVTAP, 0));
        add(&mut tables, 30, 4, "10.0.30.2", (0, 0));
        let expected = [
            (20, "10.0.10.2".into(), 10, 1),
            (10, "10.0.20.2".into(), 20, 2),
            (10, "fd00:20::2".into(), 20, 3),
        ];
        let mut found = routes(&mut tables, &["10:20"]);
        found.sort_by_key(|route| route.3);
        assert_eq!(found, expected);
        assert_eq!(routes(&mut tables, &["20:10", "10:20"]).len(), 3);
        assert_eq!(routes(&mut tables, &["10:40"]).len(), 1);
        assert_eq!(routes(&mut tables, &[]), []);
    }

    #[test]
    fn wherever_the_router_may_send_a_packet_each_container_is_known_once() {
        let mut tables = DesiredTables::default();
        add(&mut tables, 0, 1, "10.0.0.2", (0, 0));
        add(&mut tables, 10, 2, "10.0.10.2", (0, 0));
        add(&mut tables, 20, 3, "10.0.20.2", (0, 0));
        add(&mut tables, 20, 4, "10.0.20.1", (Endpoint::HOST, 0));
        let anywhere = NeighborKey::ANYWHERE;
        let expected = [
            (anywhere, "10.0.10.2".into(), 10, 2),
            (anywhere, "10.0.20.2".into(), 20, 3),
        ];
        assert_eq!(routes(&mut tables, &["everywhere"]), expected);
    }

    #[test]
    fn what_is_not_sure_is_the_routers() {
        let mut tables = DesiredTables::default();
        add(&mut tables, 20, 1, "10.0.20.1", (Endpoint::HOST, 0));
        add(&mut tables, 20, 2, "10.0.20.2", (Endpoint::CONFLICT, 0));
        add(&mut tables, 20, 3, "10.0.20.3", (0, Neighbor::CONFLICT));
        add(&mut tables, 20, 4, "10.0.20.4", (0, Neighbor::DOWN));
        add(&mut tables, 20, 5, "169.254.0.5", (0, 0));
        add(&mut tables, 20, 6, "fe80::6", (0, 0));
        // The address is on two VLANs.
        add(&mut tables, 20, 7, "10.0.77.7", (0, 0));
        add(&mut tables, 30, 7, "10.0.77.7", (0, 0));
        let found = routes(&mut tables, &["10:20", "10:30"]);
        assert_eq!(found, []);
        let found = routes(&mut tables, &["30:20"]);
        assert_eq!(found, []);
        add(&mut tables, 20, 8, "10.0.20.8", (0, 0));
        assert_eq!(routes(&mut tables, &["10:20"]).len(), 1);
        let bridged = Parent {
            ifindex: 3,
            flags: Parent::UP | Parent::PORT,
            ..Parent::default()
        };
        tables.vlans.insert(vid(20), bridged);
        assert_eq!(routes(&mut tables, &["10:20"]), []);
    }

    #[test]
    fn host_access_is_for_vlans_of_containers_without_listeners() {
        let mut tables = DesiredTables::default();
        for (number, ifindex, flags) in [
            (10, 3, Parent::UP),
            (20, 4, Parent::UP | Parent::PORT),
            (30, 0, Parent::NESTED),
            (40, 5, Parent::UP),
            (50, 6, Parent::UP | Parent::PROMISCUOUS),
        ] {
            let parent = Parent {
                ifindex,
                flags,
                ..Parent::default()
            };
            tables.vlans.insert(vid(number), parent);
        }
        for number in [10, 20, 30, 50] {
            add(&mut tables, number, 2, "10.0.0.2", (0, 0));
        }
        add(&mut tables, 40, 3, "10.0.40.1", (Endpoint::HOST, 0));
        let with_access = |host_access: &str| {
            let mut tables = tables.clone();
            let config = VlanConfig {
                host_access: host_access.parse().unwrap(),
                ..VlanConfig::default()
            };
            config.write(&mut tables);
            let with = tables
                .vlans
                .iter()
                .filter(|(_, parent)| parent.has(Parent::HOST_ACCESS));
            with.map(|(vid, _)| vid.get()).collect::<Vec<_>>()
        };
        assert_eq!(with_access("all"), [10, 50]);
        assert_eq!(with_access("10,20"), [10]);
        assert!(with_access("off").is_empty());
    }
}

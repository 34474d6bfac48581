//! Finds hidden receivers: MACs and groups that a device accepts though no device that netlink shows explains them.
//!
//! A device's lists contain the MACs and groups of every macvlan and VLAN device that is up on it, in any namespace. An
//! entry that none of the known devices explains belongs to a receiver in a namespace that is not seen.

use std::{
    collections::{BTreeMap, BTreeSet},
    iter,
    net::{IpAddr, Ipv6Addr},
};

use vlanfast_common::{Mac, Vid};

use crate::state::snapshot::{DeviceId, Ifindex, Link, LinkKind, Nsid, Receivers, Snapshot};

/// The devices that are asked: the trunk, and the VLAN devices on it in our own namespace.
pub fn parents(network: &Snapshot, trunk: Ifindex) -> BTreeSet<Ifindex> {
    let own = network.links().filter(|((nsid, _), _)| *nsid == Nsid::Own);
    let parents = own.filter(|((_, ifindex), link)| {
        let is_vlan = matches!(link.kind, LinkKind::Vlan(vid) if vid != Vid::UNTAGGED);
        *ifindex == trunk || is_vlan && link.lower == Some((Nsid::Own, trunk))
    });
    parents.map(|((_, ifindex), _)| ifindex).collect()
}

/// The devices with a receiver that nobody explains, of those that were asked.
pub fn unexplained(
    network: &Snapshot,
    receivers: &BTreeMap<Ifindex, Receivers>,
) -> BTreeSet<Ifindex> {
    let known = known(network, receivers);
    let is_hidden = |(ifindex, receivers): &(&Ifindex, &Receivers)| {
        let known = known.get(ifindex);
        known.is_some_and(|known| {
            let mut groups = receivers.solicited.iter();
            !receivers.unicast.is_subset(&known.macs) || groups.any(|group| !known.explains(*group))
        })
    };
    let hidden = receivers.iter().filter(is_hidden);
    hidden.map(|(ifindex, _)| *ifindex).collect()
}

/// The last bytes of an address, which its solicited-node group has as well (RFC 4291 clause 2.7.1).
pub fn solicited(address: Ipv6Addr) -> u32 {
    let [.., a, b, c] = address.octets();
    u32::from_be_bytes([0, a, b, c])
}

/// What the devices on top of one explain.
#[derive(Default)]
struct Known {
    macs: BTreeSet<Mac>,
    /// The last bytes of their addresses.
    addresses: BTreeSet<u32>,
}

impl Known {
    /// Whether somebody is known to have joined a group: for an address of its own, or as a router for the prefix
    /// that the address is in (RFC 4291 clause 2.6.1), of any length.
    fn explains(&self, group: u32) -> bool {
        let prefix = 1 << group.trailing_zeros().min(24);
        self.addresses.range(group..group + prefix).next().is_some()
    }
}

fn known(network: &Snapshot, receivers: &BTreeMap<Ifindex, Receivers>) -> BTreeMap<Ifindex, Known> {
    let empty = |ifindex: &Ifindex| (*ifindex, Known::default());
    let mut all: BTreeMap<_, _> = receivers.keys().map(empty).collect();
    if all.is_empty() {
        return all;
    }
    for (place, link) in network.links() {
        let namespace = network.namespaces.get(&place.0);
        let addresses = namespace.and_then(|namespace| namespace.addresses.get(&place.1));
        for below in iter::once(place).chain(below(network, link)) {
            let known = match below {
                (Nsid::Own, ifindex) => all.get_mut(&ifindex),
                _ => None,
            };
            let Some(known) = known else { continue };
            if link.up {
                known.macs.insert(link.mac);
            }
            for address in addresses.into_iter().flatten() {
                if let IpAddr::V6(address) = address {
                    known.addresses.insert(solicited(*address));
                }
            }
        }
    }
    // A VLAN device hands its list down: whoever is hidden there is no riddle of the trunk's.
    for (&ifindex, receivers) in receivers {
        let Some((_, link)) = network.find((Nsid::Own, ifindex)) else {
            continue;
        };
        for (_, below) in below(network, link).filter(|(nsid, _)| *nsid == Nsid::Own) {
            if let Some(known) = all.get_mut(&below) {
                known.macs.extend(&receivers.unicast);
                known.addresses.extend(&receivers.solicited);
            }
        }
    }
    all
}

/// The devices that are asked to take what a device takes. The other end of a veth is not below it.
fn below<'a>(network: &'a Snapshot, link: &'a Link) -> impl Iterator<Item = DeviceId> + 'a {
    /// No more than the kernel stacks (`MAX_NEST_DEV`).
    const DEPTH: usize = 8;
    let lower = |link: &Link| link.lower.filter(|_| link.kind != LinkKind::Other);
    let next = move |place: &DeviceId| lower(network.find(*place)?.1);
    iter::successors(lower(link), next).take(DEPTH)
}

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

/// Returns the devices whose receivers are watched: the trunk, and its VLAN devices in our own namespace.
pub fn parents(snapshot: &Snapshot, trunk: Ifindex) -> BTreeSet<Ifindex> {
    let own = snapshot.links().filter(|((nsid, _), _)| *nsid == Nsid::Own);
    let parents = own.filter(|((_, ifindex), link)| {
        let is_vlan = matches!(link.kind, LinkKind::Vlan(vid) if vid != Vid::UNTAGGED);
        *ifindex == trunk || is_vlan && link.lower == Some((Nsid::Own, trunk))
    });
    parents.map(|((_, ifindex), _)| ifindex).collect()
}

/// Finds the watched devices with a receiver that no visible device explains.
pub fn unexplained(
    snapshot: &Snapshot,
    receivers: &BTreeMap<Ifindex, Receivers>,
) -> BTreeSet<Ifindex> {
    let known = known(snapshot, receivers);
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

/// Returns the last three bytes of an address, which its solicited-node group has as well (RFC 4291 clause 2.7.1).
pub fn solicited(address: Ipv6Addr) -> u32 {
    let [.., a, b, c] = address.octets();
    u32::from_be_bytes([0, a, b, c])
}

/// The receivers that the devices on top of a device explain.
#[derive(Default)]
struct Known {
    macs: BTreeSet<Mac>,
    /// The last three bytes of each address.
    addresses: BTreeSet<u32>,
}

impl Known {
    /// Whether a known device may have joined a group. It does so for each of its addresses, and as a router for the
    /// prefix of an address (RFC 4291 clause 2.6.1), whatever the length of the prefix.
    fn explains(&self, group: u32) -> bool {
        let prefix = 1 << group.trailing_zeros().min(24);
        self.addresses.range(group..group + prefix).next().is_some()
    }
}

fn known(
    snapshot: &Snapshot,
    receivers: &BTreeMap<Ifindex, Receivers>,
) -> BTreeMap<Ifindex, Known> {
    let empty = |ifindex: &Ifindex| (*ifindex, Known::default());
    let mut all: BTreeMap<_, _> = receivers.keys().map(empty).collect();
    if all.is_empty() {
        return all;
    }
    for (device, link) in snapshot.links() {
        let namespace = snapshot.namespaces.get(&device.0);
        let addresses = namespace.and_then(|namespace| namespace.addresses.get(&device.1));
        for below in iter::once(device).chain(below(snapshot, link)) {
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
    // A VLAN device passes its lists on to the trunk, so a hidden receiver there does not count as hidden on the trunk
    // as well.
    for (&ifindex, receivers) in receivers {
        let Some((_, link)) = snapshot.find((Nsid::Own, ifindex)) else {
            continue;
        };
        for (_, below) in below(snapshot, link).filter(|(nsid, _)| *nsid == Nsid::Own) {
            if let Some(known) = all.get_mut(&below) {
                known.macs.extend(&receivers.unicast);
                known.addresses.extend(&receivers.solicited);
            }
        }
    }
    all
}

/// Returns the devices that must accept what a device accepts. The other end of a veth is not one of them.
fn below<'a>(snapshot: &'a Snapshot, link: &'a Link) -> impl Iterator<Item = DeviceId> + 'a {
    /// The kernel's limit for stacked devices (`MAX_NEST_DEV`).
    const DEPTH: usize = 8;
    let lower = |link: &Link| link.lower.filter(|_| link.kind != LinkKind::Other);
    let next = move |device: &DeviceId| lower(snapshot.find(*device)?.1);
    iter::successors(lower(link), next).take(DEPTH)
}

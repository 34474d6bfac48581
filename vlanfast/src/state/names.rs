//! Docker's names for the endpoints that netlink found.
//!
//! What Docker believes of an interface may be out of date: who has `CAP_NET_ADMIN` in a container
//! changes MAC and addresses. Nor is either unique: the same may be on several VLANs. So the parent
//! must agree, and then the better evidence goes first.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
    ptr,
};

use vlanfast_common::{EndpointKey, Mac};

use super::{
    name::Name,
    snapshot,
    snapshot::{Container, Docker, DockerAttachment, DockerNetwork, Nsid},
};
use crate::state::tables::{Desired, EndpointDevice};

/// The names of one endpoint; all empty where Docker knows nothing of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// The device's name in its namespace.
    pub device: String,
    pub container: Option<String>,
    pub network: Option<String>,
    /// The Compose project and service.
    pub project: Option<String>,
    pub service: Option<String>,
}

/// An endpoint's key, and the device it is: several may have one MAC.
type Id = (EndpointKey, snapshot::DeviceId);

/// The names of every device that is an endpoint.
pub fn names(desired: &Desired, docker: &Docker) -> BTreeMap<Id, Names> {
    let places = Candidates::of(docker);
    let mut found: BTreeMap<Id, Candidate> = BTreeMap::new();
    // An attachment is one device: where one has its MAC, another with its address is someone else.
    let mut taken = HashSet::new();
    for evidence in [
        Candidates::by_both,
        Candidates::by_mac,
        Candidates::by_address,
    ] {
        for (&key, device) in &desired.devices {
            if found.contains_key(&key) {
                continue;
            }
            let mut candidates = evidence(&places, key.0.mac(), device).into_iter();
            if let Some(place) = candidates.find(|place| !taken.contains(&place.id())) {
                taken.insert(place.id());
                found.insert(key, place);
            }
        }
    }
    let residents = residents(desired, &found);
    let name = |(&key, device): (&Id, &EndpointDevice)| {
        let (container, network) = match found.get(&key) {
            Some(place) => (Some(place.container), Some(place.network)),
            None => {
                let container = residents.get(&device.nsid).copied().flatten();
                let network = container.and_then(|it| only_network(it, &device.parent, docker));
                (container, network)
            }
        };
        let names = Names {
            device: device.name.to_string(),
            container: container.map(|container| container.name.clone()),
            network: network.map(|network| network.name.clone()),
            project: container.and_then(|container| container.project.clone()),
            service: container.and_then(|container| container.service.clone()),
        };
        (key, names)
    };
    desired.devices.iter().map(name).collect()
}

/// A container's place in a macvlan network.
#[derive(Clone, Copy)]
struct Candidate<'a> {
    container: &'a Container,
    attachment: &'a DockerAttachment,
    network: &'a DockerNetwork,
}

impl Candidate<'_> {
    fn id(&self) -> *const DockerAttachment {
        ptr::from_ref(self.attachment)
    }
}

/// All places, by what a device on the parent of that name can be known by.
#[derive(Default)]
struct Candidates<'a> {
    macs: HashMap<(&'a [u8], Mac), Vec<Candidate<'a>>>,
    addresses: HashMap<(&'a [u8], IpAddr), Vec<Candidate<'a>>>,
}

impl<'a> Candidates<'a> {
    fn of(docker: &'a Docker) -> Self {
        let mut places = Self::default();
        for container in &docker.containers {
            for attachment in &container.attachments {
                let Some(network) = docker.networks.get(&attachment.network) else {
                    continue;
                };
                let Some(parent) = network.parent.as_deref().map(str::as_bytes) else {
                    continue;
                };
                let place = Candidate {
                    container,
                    attachment,
                    network,
                };
                if let Some(mac) = attachment.mac {
                    places.macs.entry((parent, mac)).or_default().push(place);
                }
                for &address in &attachment.addresses {
                    let known = places.addresses.entry((parent, address));
                    known.or_default().push(place);
                }
            }
        }
        places
    }

    /// Two may be said to have one MAC: one that has changed its own, and one that was given it since.
    fn by_both(&self, mac: Mac, device: &EndpointDevice) -> Vec<Candidate<'a>> {
        let mut places = self.by_mac(mac, device);
        let has = |address| device.addresses.contains(address);
        places.retain(|place| place.attachment.addresses.iter().any(has));
        places
    }

    fn by_mac(&self, mac: Mac, device: &EndpointDevice) -> Vec<Candidate<'a>> {
        let places = self.macs.get(&(device.parent.as_bytes(), mac));
        places.cloned().unwrap_or_default()
    }

    fn by_address(&self, _: Mac, device: &EndpointDevice) -> Vec<Candidate<'a>> {
        let parent = device.parent.as_bytes();
        let addresses = device.addresses.iter();
        let known = addresses.filter_map(|&address| self.addresses.get(&(parent, address)));
        known.flatten().copied().collect()
    }
}

/// The container that a namespace belongs to; `None` where several seem to share it.
fn residents<'a>(
    desired: &Desired,
    found: &BTreeMap<Id, Candidate<'a>>,
) -> HashMap<Nsid, Option<&'a Container>> {
    let mut residents = HashMap::new();
    for (key, place) in found {
        match desired.devices.get(key).map(|device| device.nsid) {
            // The host's own namespace is nobody's.
            None | Some(Nsid::Own) => {}
            Some(nsid) => {
                let resident = residents.entry(nsid).or_insert(Some(place.container));
                if resident.is_some_and(|other| !ptr::eq(other, place.container)) {
                    *resident = None;
                }
            }
        }
    }
    residents
}

/// The container's network on a parent, if there is exactly one.
fn only_network<'a>(
    container: &Container,
    parent: &Name,
    docker: &'a Docker,
) -> Option<&'a DockerNetwork> {
    let attachments = container.attachments.iter();
    let networks = attachments.filter_map(|attachment| docker.networks.get(&attachment.network));
    let mut networks = networks
        .filter(|network| network.parent.as_deref().map(str::as_bytes) == Some(parent.as_bytes()));
    let first = networks.next();
    first.filter(|_| networks.next().is_none())
}

#[cfg(test)]
mod tests;

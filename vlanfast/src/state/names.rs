//! Finds Docker's names for the endpoints that netlink shows.
//!
//! Docker's record of an interface may be out of date, because a container with `CAP_NET_ADMIN` can change its MAC and
//! addresses. Neither is unique, because several VLANs may use the same ones. So the parent has to match in any case,
//! and a device that matches by MAC and address takes precedence over one that matches by either.

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

/// The names of an endpoint. All but the device's are empty if Docker does not know it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// The name of the device in its namespace.
    pub device: String,
    pub container: Option<String>,
    pub network: Option<String>,
    /// The names of the Compose project and service.
    pub project: Option<String>,
    pub service: Option<String>,
}

/// An endpoint's key and its device, because several devices may have the same MAC.
type Id = (EndpointKey, snapshot::DeviceId);

/// Finds the names of all devices that are endpoints.
pub fn names(desired: &Desired, docker: &Docker) -> BTreeMap<Id, Names> {
    let candidates = Candidates::of(docker);
    let mut found: BTreeMap<Id, Candidate> = BTreeMap::new();
    // An attachment belongs to one device. If one device has its MAC, another one that has its address does not get its
    // name.
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
            let mut matching = evidence(&candidates, key.0.mac(), device).into_iter();
            if let Some(candidate) = matching.find(|candidate| !taken.contains(&candidate.id())) {
                taken.insert(candidate.id());
                found.insert(key, candidate);
            }
        }
    }
    let residents = residents(desired, &found);
    let name = |(&key, device): (&Id, &EndpointDevice)| {
        let (container, network) = match found.get(&key) {
            Some(candidate) => (Some(candidate.container), Some(candidate.network)),
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

/// An attachment of a container to a macvlan network, which may be that of a device.
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

/// All attachments, indexed by parent name and MAC, and by parent name and address.
#[derive(Default)]
struct Candidates<'a> {
    macs: HashMap<(&'a [u8], Mac), Vec<Candidate<'a>>>,
    addresses: HashMap<(&'a [u8], IpAddr), Vec<Candidate<'a>>>,
}

impl<'a> Candidates<'a> {
    fn of(docker: &'a Docker) -> Self {
        let mut candidates = Self::default();
        for container in &docker.containers {
            for attachment in &container.attachments {
                let Some(network) = docker.networks.get(&attachment.network) else {
                    continue;
                };
                let Some(parent) = network.parent.as_deref().map(str::as_bytes) else {
                    continue;
                };
                let candidate = Candidate {
                    container,
                    attachment,
                    network,
                };
                if let Some(mac) = attachment.mac {
                    candidates
                        .macs
                        .entry((parent, mac))
                        .or_default()
                        .push(candidate);
                }
                for &address in &attachment.addresses {
                    let known = candidates.addresses.entry((parent, address));
                    known.or_default().push(candidate);
                }
            }
        }
        candidates
    }

    /// Two attachments may have the same MAC, if a container has changed its own and Docker has given it to another
    /// since.
    fn by_both(&self, mac: Mac, device: &EndpointDevice) -> Vec<Candidate<'a>> {
        let mut candidates = self.by_mac(mac, device);
        let has = |address| device.addresses.contains(address);
        candidates.retain(|candidate| candidate.attachment.addresses.iter().any(has));
        candidates
    }

    fn by_mac(&self, mac: Mac, device: &EndpointDevice) -> Vec<Candidate<'a>> {
        let candidates = self.macs.get(&(device.parent.as_bytes(), mac));
        candidates.cloned().unwrap_or_default()
    }

    fn by_address(&self, _: Mac, device: &EndpointDevice) -> Vec<Candidate<'a>> {
        let parent = device.parent.as_bytes();
        let addresses = device.addresses.iter();
        let known = addresses.filter_map(|&address| self.addresses.get(&(parent, address)));
        known.flatten().copied().collect()
    }
}

/// Finds the container of each namespace; `None` if several containers seem to share the namespace.
fn residents<'a>(
    desired: &Desired,
    found: &BTreeMap<Id, Candidate<'a>>,
) -> HashMap<Nsid, Option<&'a Container>> {
    let mut residents = HashMap::new();
    for (key, candidate) in found {
        match desired.devices.get(key).map(|device| device.nsid) {
            // The host's own namespace belongs to no container.
            None | Some(Nsid::Own) => {}
            Some(nsid) => {
                let resident = residents.entry(nsid).or_insert(Some(candidate.container));
                if resident.is_some_and(|other| !ptr::eq(other, candidate.container)) {
                    *resident = None;
                }
            }
        }
    }
    residents
}

/// Returns the container's network on a parent, if there is exactly one.
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

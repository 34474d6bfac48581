//! The topology under test: a trunk with two VLAN devices, to which a test adds containers.

use std::net::IpAddr;

use vlanfast::state::{
    address_owners::Given,
    desired::desired,
    snapshot::{Ifindex, Link, LinkKind, Mode, Nsid, Promiscuity, Silence, Snapshot},
    tables::Desired,
};
use vlanfast_common::{EndpointKey, Mac, NeighborKey, Vid};

pub const TRUNK: Ifindex = Ifindex(2);
pub const OWN: Nsid = Nsid::Own;

pub fn vid(number: u16) -> Vid {
    Vid::new(number)
}

pub fn mac(last: u8) -> Mac {
    Mac([2, 0x42, 0, 0, 0, last])
}

pub fn key(number: u16, last: u8) -> EndpointKey {
    EndpointKey::new(vid(number), mac(last))
}

pub fn neighbor(number: u16, address: &str) -> NeighborKey {
    NeighborKey::new(vid(number), address.parse().unwrap())
}

/// The devices and addresses of a host, which a test adds one by one.
pub struct TestNetwork(pub Snapshot);

impl TestNetwork {
    /// A trunk `eth0` (MAC …:01) with the VLAN devices `eth0.10` (index 10) and `eth0.20` (index 20), which share its
    /// MAC.
    pub fn new() -> Self {
        let mut network = Self(Snapshot::default());
        network.add(OWN, TRUNK.0, "eth0", 1, LinkKind::Other, None);
        for number in [10, 20] {
            network.vlan(number.into(), &format!("eth0.{number}"), number);
        }
        network
    }

    pub fn add(
        &mut self,
        nsid: Nsid,
        index: u32,
        name: &str,
        last: u8,
        kind: LinkKind,
        lower: Option<(Nsid, u32)>,
    ) {
        let link = Link {
            name: name.into(),
            mac: mac(last),
            up: true,
            mtu: 1500,
            kind,
            lower: lower.map(|(nsid, index)| (nsid, Ifindex(index))),
            port: false,
            promiscuity: Promiscuity::default(),
            silence: Silence::default(),
        };
        let namespace = self.0.namespaces.entry(nsid).or_default();
        namespace.links.insert(Ifindex(index), link);
    }

    pub fn vlan(&mut self, index: u32, name: &str, number: u16) {
        let kind = LinkKind::Vlan(vid(number));
        self.add(OWN, index, name, 1, kind, Some((OWN, TRUNK.0)));
    }

    /// Adds a container's `eth0`: a macvlan in bridge mode, as Docker creates it.
    pub fn container(&mut self, nsid: i32, index: u32, last: u8, parent: u32, addresses: &[&str]) {
        let (nsid, lower) = (Nsid::Other(nsid), Some((OWN, parent)));
        let kind = LinkKind::Macvlan(Mode::Bridge);
        self.add(nsid, index, "eth0", last, kind, lower);
        self.addresses(nsid, index, addresses);
    }

    pub fn addresses(&mut self, nsid: Nsid, index: u32, addresses: &[&str]) {
        let addresses: Vec<IpAddr> = addresses.iter().map(|text| text.parse().unwrap()).collect();
        let namespace = self.0.namespaces.entry(nsid).or_default();
        namespace.addresses.insert(Ifindex(index), addresses);
    }

    pub fn down(&mut self, nsid: Nsid, index: u32) {
        let namespace = self.0.namespaces.get_mut(&nsid).unwrap();
        namespace.links.get_mut(&Ifindex(index)).unwrap().up = false;
    }

    pub fn desired(&self) -> Desired {
        desired(&self.0, TRUNK, &Given::default())
    }
}

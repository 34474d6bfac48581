//! Tables that answer every question alike: what property tests and fuzzers hand in.

use crate::{
    Bucket, Endpoint, EndpointKey, Neighbor, NeighborKey, Parent, Policy, Route, Settings, Shed,
    Tables, Vid,
};

/// The same answer whatever the key.
#[derive(Debug, Default)]
pub struct Uniform {
    pub policy: Policy,
    pub settings: Settings,
    pub parent: Parent,
    pub endpoint: Option<Endpoint>,
    pub neighbor: Option<Neighbor>,
    pub route: Option<Route>,
    pub bucket: Bucket,
    pub now: u64,
}

impl Tables for Uniform {
    fn steers(&self) -> bool {
        self.policy.steer != 0
    }

    fn storm_limit(&self) -> u32 {
        self.policy.storm_limit
    }

    fn sheds_vlans(&self) -> bool {
        self.policy.shed >= Shed::Vlan as u32
    }

    fn sheds_macs(&self) -> bool {
        self.policy.shed >= Shed::Mac as u32
    }

    fn gives_host_access(&self) -> bool {
        self.policy.host_access != 0
    }

    fn takes_shortcuts(&self) -> bool {
        self.policy.shortcut != 0
    }

    fn parent(&self, _vid: Vid) -> Parent {
        self.parent
    }

    fn endpoint(&self, _key: EndpointKey) -> Option<Endpoint> {
        self.endpoint
    }

    fn neighbor(&self, _key: NeighborKey) -> Option<Neighbor> {
        self.neighbor
    }

    fn route(&self, _key: NeighborKey) -> Option<Route> {
        self.route
    }

    fn bucket(&self, _vid: Vid) -> Option<&Bucket> {
        Some(&self.bucket)
    }

    fn settings(&self) -> Option<&Settings> {
        Some(&self.settings)
    }

    fn now(&self) -> u64 {
        self.now
    }
}

//! Tables with the same answer for every key: what property tests and fuzzers hand in.

use crate::{
    abi::{
        Claim, Endpoint, EndpointKey, Flow, FlowKey, Neighbor, NeighborKey, Parent, Policy, Route,
        Settings, Vid, VlanPair, VlanPairCounters,
    },
    bucket::Buckets,
    lookup::{Lookup, Switches},
};

/// A value of each map, which every key has.
#[derive(Debug, Default)]
pub struct Uniform {
    pub policy: Policy,
    pub settings: Settings,
    pub parent: Parent,
    pub endpoint: Option<Endpoint>,
    pub neighbor: Option<Neighbor>,
    pub route: Option<Route>,
    pub flow: Flow,
    pub pair: VlanPairCounters,
    pub claim: Option<Claim>,
    pub buckets: Buckets,
    pub now: u64,
}

impl Switches for Uniform {
    fn policy<T: Copy>(&self, field: impl FnOnce(&Policy) -> &T) -> T {
        self.policy.policy(field)
    }
}

impl Lookup for Uniform {
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

    fn flow(&self, _key: &FlowKey) -> Option<&Flow> {
        Some(&self.flow)
    }

    fn open_flow(&self, _key: &FlowKey) -> Option<&Flow> {
        Some(&self.flow)
    }

    fn forget_flow(&self, _key: &FlowKey) {}

    fn pair(&self, _key: VlanPair) -> Option<&VlanPairCounters> {
        Some(&self.pair)
    }

    fn claim(&self, _key: NeighborKey) -> Option<Claim> {
        self.claim
    }

    fn note_claim(&self, _key: NeighborKey, _claim: Claim) {}

    fn mark_conflict(&self, _key: EndpointKey) {}

    fn buckets(&self, _vid: Vid) -> Option<&Buckets> {
        Some(&self.buckets)
    }

    fn settings(&self) -> Option<&Settings> {
        Some(&self.settings)
    }

    fn now(&self) -> u64 {
        self.now
    }

    fn exact_now(&self) -> u64 {
        self.now
    }
}

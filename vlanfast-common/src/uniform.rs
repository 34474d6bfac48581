//! Tables that answer every question alike: what property tests and fuzzers hand in.

use crate::{
    Buckets, Claim, Endpoint, EndpointKey, Flow, FlowKey, Neighbor, NeighborKey, VlanPairCounters, VlanPair,
    Parent, Policy, Route, Settings, Shed, Shortcut, Tables, Vid,
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
    pub flow: Flow,
    pub pair: VlanPairCounters,
    pub claim: Option<Claim>,
    pub buckets: Buckets,
    pub now: u64,
}

impl Tables for Uniform {
    fn steers(&self) -> bool {
        self.policy.steer != 0
    }

    fn storm_limit(&self) -> u32 {
        self.policy.storm_limit
    }

    fn group_limit(&self) -> u32 {
        self.policy.group_limit
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
        self.policy.shortcut == Shortcut::Allow as u32
    }

    fn learns(&self) -> bool {
        self.policy.shortcut == Shortcut::Learned as u32
    }

    fn refresh(&self) -> u64 {
        u64::from(self.policy.shortcut_refresh) * 1_000_000_000
    }

    fn delivers(&self) -> bool {
        self.policy.deliver != 0
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

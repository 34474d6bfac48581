//! What the packet logic asks of a [`World`].

use vlanfast_common::{
    Buckets, Claim, Endpoint, EndpointKey, Flow, FlowKey, Neighbor, NeighborKey, VlanPairCounters, VlanPair,
    Parent, Route, Settings, Shed, Shortcut, Tables, Vid,
};

use super::World;

impl Tables for World {
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
        self.redirects && self.policy.deliver != 0
    }

    fn parent(&self, vid: Vid) -> Parent {
        self.vlans.get(&vid).copied().unwrap_or_default()
    }

    fn endpoint(&self, key: EndpointKey) -> Option<Endpoint> {
        let mut endpoint = self.endpoints.get(&key).copied()?;
        if self.doubles.borrow().contains(&key) {
            endpoint.flags |= Endpoint::CONFLICT;
        }
        Some(endpoint)
    }

    fn neighbor(&self, key: NeighborKey) -> Option<Neighbor> {
        self.neighbors.get(&key).copied()
    }

    fn route(&self, key: NeighborKey) -> Option<Route> {
        self.routes.get(&key).copied()
    }

    fn flow(&self, key: &FlowKey) -> Option<&Flow> {
        self.flows.borrow().get(key).copied()
    }

    fn open_flow(&self, key: &FlowKey) -> Option<&Flow> {
        let flow: &Flow = Box::leak(Box::default());
        self.flows.borrow_mut().insert(*key, flow);
        Some(flow)
    }

    fn forget_flow(&self, key: &FlowKey) {
        self.flows.borrow_mut().remove(key);
    }

    fn pair(&self, key: VlanPair) -> Option<&VlanPairCounters> {
        let mut pairs = self.pairs.borrow_mut();
        Some(
            pairs
                .entry(key)
                .or_insert_with(|| Box::leak(Box::default())),
        )
    }

    fn claim(&self, key: NeighborKey) -> Option<Claim> {
        self.claims.borrow().get(&key).copied()
    }

    fn note_claim(&self, key: NeighborKey, claim: Claim) {
        self.claims.borrow_mut().insert(key, claim);
    }

    fn mark_conflict(&self, key: EndpointKey) {
        self.doubles.borrow_mut().insert(key);
    }

    fn buckets(&self, _vid: Vid) -> Option<&Buckets> {
        Some(&self.buckets)
    }

    fn settings(&self) -> Option<&Settings> {
        Some(&self.settings)
    }

    fn now(&self) -> u64 {
        self.now.get()
    }

    fn exact_now(&self) -> u64 {
        self.now.get()
    }
}

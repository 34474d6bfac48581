//! What the packet logic asks of a [`World`].

use vlanfast_common::{
    Buckets, Claim, Endpoint, EndpointKey, Flow, FlowKey, Lookup, Neighbor, NeighborKey, Parent,
    Policy, Route, Settings, Switches, Vid, VlanPair, VlanPairCounters,
};

use super::World;

impl Switches for World {
    fn policy<T: Copy>(&self, field: impl FnOnce(&Policy) -> &T) -> T {
        self.policy.policy(field)
    }

    fn can_redirect(&self) -> bool {
        self.redirects
    }
}

impl Lookup for World {
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

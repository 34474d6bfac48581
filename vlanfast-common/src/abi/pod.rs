//! Lets aya read and write the maps.

use super::{
    Claim, Counters, Endpoint, EndpointKey, FlowKey, Neighbor, NeighborKey, Parent, Policy, Route,
    Settings, Status, VlanPair,
};

macro_rules! pod {
    ($($plain:ty),+ $(,)?) => {$(
        const _: () = is_pod::<$plain>();

        // SAFETY: `bytemuck::Pod` demands the same and more.
        unsafe impl aya::Pod for $plain {}
    )+};
}

const fn is_pod<T: bytemuck::Pod>() {}

pod!(
    Claim,
    Counters,
    Endpoint,
    EndpointKey,
    FlowKey,
    Neighbor,
    NeighborKey,
    Parent,
    Policy,
    Route,
    Settings,
    Status,
    VlanPair,
);

//! What crosses the kernel's border: keys and values of the maps, with numbers in host byte order and addresses in the
//! order of the wire.
//!
//! Plain data derives `bytemuck::Pod`, which proves that a type has no padding and takes any bytes for a value. The values
//! that all CPUs write ([`Flow`], [`VlanPairCounters`], [`Buckets`](crate::Buckets)) have atomics, which are not plain
//! data: user space reads their words, and makes them of those.

mod addr;
mod counters;
mod flows;
#[cfg(feature = "user")]
mod pod;
mod policy;
mod settings;
mod status;
mod tables;
mod vlan;

pub use addr::{Mac, Vid};
pub use counters::{Cast, Counters, Direction, Reason, Tally, Wire};
pub use flows::{Flow, FlowKey, VlanPair, VlanPairCounters};
pub use policy::{Policy, Shed, Shortcut};
pub use settings::{IngressReason, LAYOUT, Settings};
pub use status::{Source, SourceState, SourceStatus, Status};
pub use tables::{Claim, Endpoint, EndpointKey, Neighbor, NeighborKey, Parent, Route};
pub use vlan::Vlan;

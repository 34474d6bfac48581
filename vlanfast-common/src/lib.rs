//! The packet logic of vlanfast: what a frame is, which VLAN it belongs to and what becomes of it.
//!
//! One source for every place that looks at a frame: the XDP and the TC program, the tests and the
//! fuzzers. A packet's way through it is one line:
//! [`Frame`] → [`parse`] → [`classify`] → [`Verdict`], and [`wire`] says how much to count.
//!
//! Nothing here knows its hook, reads a clock or touches memory that it was not given.
#![no_std]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]
#![forbid(unsafe_op_in_unsafe_fn)]

mod addr;
mod classify;
mod counters;
mod redirect;
mod flow;
mod frame;
mod message;
mod packet;
mod pair;
mod parse;
mod heartbeat;
mod routed;
mod settings;
mod atomic;
mod storm;
mod tables;
mod uniform;
mod verdict;
mod cache;
mod wire;

pub use addr::{Mac, Vid};
pub use classify::{
    LINEAR_LEN, Tables, classify, decide, decides, heartbeat, is_plain, learn, learnable, meet, meets,
    note_double, shed, shortcut, shortcut_of,
};
pub use counters::{Counters, Direction, Tally};
pub use redirect::{RedirectBlocked, redirect_blocked_by};
pub use flow::{ANSWER, Arrival, CANDIDATE, Flow, FlowState, IDLE, LATE, Step};
pub use frame::{Bytes, Frame, Segments, Tag};
pub use message::{Message, Target, hides};
pub use packet::{FlowKey, Packet};
pub use pair::{VlanPairCounters, VlanPair};
pub use parse::{Cast, Headers, Protocol, Vlan, parse};
pub use heartbeat::HeartbeatCache;
pub use routed::{Hop, Network, ends, fits, longest};
pub use settings::{
    IngressReason, Policy, Settings, Shed, Shortcut, Source, SourceState, SourceStatus, Status,
};
pub use storm::{Bucket, Buckets};
pub use tables::{Claim, Endpoint, EndpointKey, LAYOUT, Neighbor, NeighborKey, Parent, Route};
pub use uniform::Uniform;
pub use verdict::{Reason, Verdict};
pub use cache::RouteCacheEntry;
pub use wire::{Repeated, Wire, repeated, wire};

//! The packet logic of vlanfast: what a frame is, which VLAN it belongs to, and what becomes of it.
//!
//! There is one source for every place that looks at a frame: the XDP and the TC program, the tests and the fuzzers. A
//! packet's way through it is one line: [`Frame`] → [`parse()`] → [`classify()`] → [`Verdict`], and [`wire`] says how much
//! to count.
//!
//! Nothing here knows its hook, reads a clock or touches memory that it was not given.
#![no_std]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]
#![forbid(unsafe_op_in_unsafe_fn)]

mod abi;
mod atomic;
mod bucket;
mod bytes;
mod classify;
mod count;
mod frame;
mod headers;
mod heartbeat;
mod layer2;
mod lookup;
mod message;
mod parse;
mod shortcut;
mod uniform;
mod verdict;

pub use abi::{
    Cast, Claim, Counters, Direction, Endpoint, EndpointKey, Flow, FlowKey, IngressReason, LAYOUT,
    Mac, Neighbor, NeighborKey, Parent, Policy, Reason, Route, Settings, Shed, Shortcut, Source,
    SourceState, SourceStatus, Status, Tally, Vid, Vlan, VlanPair, VlanPairCounters, Wire,
};
pub use bucket::{Bucket, Buckets};
pub use bytes::Bytes;
pub use classify::{
    RedirectBlocked, check_sender_mac, checks_sender_mac, classify, decide, decides, is_plain,
    learnable, redirect_blocked_by, shed, shortcut, shortcut_of,
};
pub use frame::{Frame, Repeated, Segments};
pub use heartbeat::HeartbeatCache;
pub use layer2::{Headers, LINEAR_LEN, Protocol, Tag};
pub use lookup::{Lookup, Switches, heartbeat, record_duplicate_mac};
pub use message::{Message, Target};
pub use parse::{IpVersion, Network, V4, V6, ends, hides, longest, parse, repeated, wire};
pub use shortcut::{
    ANSWER, Arrival, CANDIDATE, FlowState, Hop, IDLE, LATE, Packet, RouteCacheEntry, Step, fits,
    learn,
};
pub use uniform::Uniform;
pub use verdict::Verdict;

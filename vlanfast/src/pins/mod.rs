//! What outlives the process: the maps, programs and links that are pinned in
//! `/sys/fs/bpf/vlanfast/<namespace>:<ifindex>:<name>/`.
//!
//! An attached process holds a lock on that directory. The kernel releases the lock when the process ends, even after a
//! `kill -9`, so no file is needed that could be wrong about who is alive.

mod dir;
mod holder;
mod id;
mod layout;
mod root;
mod trunk;

pub use self::{
    holder::{Holder, Process},
    id::{Entry, TrunkId, netns},
    layout::{
        CLAIMS, COUNTERS, ENDPOINTS, FLOWS, MAPS, NEIGHBORS, PAIRS, ROUTES, SETTINGS, STATUS,
        VLANS, commit, next, stage,
    },
    root::{Root, bpffs},
    trunk::{Lock, Pins},
};

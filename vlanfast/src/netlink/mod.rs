//! Talks rtnetlink with the kernel. All other modules use this one to read and change the configuration.
//!
//! A device that cannot be read is never treated as absent. Messages are decoded only as far as they are needed, and
//! one that cannot be decoded is reported as [`Undecodable`](decode::Undecodable). Every request ends with an answer or
//! at a deadline. A device counts as gone only if the kernel says so (`ENODEV`).

pub mod attrs;
pub mod decode;
mod dump;
mod events;
mod failure;
mod inventory;
mod links;
pub mod merge;
mod neighbors;
mod nsid;
pub mod packet_receivers;
mod process_namespaces;
pub mod query;
pub mod request;
pub mod tc;
mod xdp;

pub use events::HookEvents;
pub use inventory::{Inventory, names};
pub use neighbors::HostNeighbor;
pub use query::Netlink;

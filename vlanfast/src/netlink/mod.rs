//! What the kernel says over rtnetlink, and what it is told: the one way to it for every other module.
//!
//! What can't be read is never taken for absent. A message is read as bytes, as far as it is needed, and one
//! that can't be is an [`Undecodable`](decode::Undecodable); a question ends with an answer or at a deadline;
//! and only the kernel's own word (`ENODEV`) means that a device is gone.

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

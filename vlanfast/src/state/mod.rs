//! Computes the contents of the maps: from a snapshot of the network to the desired tables, and from these to a plan of
//! changes. Everything here is pure: it uses no kernel, clock or Docker.

pub mod address_conflicts;
pub mod address_owners;
pub mod claims;
pub mod config;
pub mod desired;
pub mod hidden_receivers;
pub mod listeners;
pub mod mac_conflicts;
pub mod name;
pub mod names;
pub mod plan;
pub mod quotas;
pub mod report;
pub mod snapshot;
pub mod tables;
pub mod vids;

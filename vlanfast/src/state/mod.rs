//! What is so, what should be in the maps, and the difference. Pure: no kernel, no clock, no Docker.

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

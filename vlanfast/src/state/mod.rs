//! What is so, what should be in the maps, and the difference. Pure: no kernel, no clock, no Docker.

pub mod config;
pub mod desired;
pub mod doubles;
pub mod listeners;
pub mod name;
pub mod names;
pub mod owners;
pub mod plan;
pub mod published;
pub mod receivers;
pub mod shares;
pub mod snapshot;
pub mod vids;
pub mod vouching;

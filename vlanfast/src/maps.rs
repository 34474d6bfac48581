//! The maps of the programs: what the loader writes into them, and what it reads from them.

pub mod counters;
pub mod entries;
pub mod flows;
pub mod heartbeat;
pub mod load;
pub mod tables;

//! The maps of the BPF programs. `load` loads them and the programs from the object in this binary; the other modules
//! write and read their entries.

pub mod counters;
pub mod entries;
pub mod flows;
pub mod heartbeat;
pub mod load;
pub mod tables;

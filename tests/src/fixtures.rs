//! The starting points of tests: topologies, filled tables, and a corpus of frames.

pub mod corpus;
pub mod host_and_containers;
pub mod local_devices;
pub mod macvlans;
pub mod one_vlan;
pub mod tables;
pub mod tutorial;
pub mod two_vlans;
pub mod vlan_counts;

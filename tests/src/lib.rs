//! What the tests that need root share. They touch nothing but namespaces, devices and pins that
//! they made themselves, under names of their own.

pub mod access;
pub mod bare;
pub mod bulk;
pub mod capture;
pub mod cpu;
pub mod crash;
pub mod daemon;
pub mod decisions;
pub mod delivery;
pub mod docker;
pub mod house;
pub mod messages;
pub mod packet;
pub mod program;
pub mod prometheus;
pub mod require;
pub mod residue;
pub mod scenario;
pub mod scene;
pub mod shedding;
pub mod stall;
pub mod steering;
pub mod storm;
pub mod supervisor;
pub mod sync;
pub mod tagged;
pub mod talk;
pub mod topology;
pub mod traffic;
pub mod world;

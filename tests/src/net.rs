//! Namespaces, devices and wires; frames, and traffic over them.

pub mod bulk;
pub mod capture;
pub mod cpu;
pub mod echo;
pub mod messages;
pub mod namespace;
pub mod packet;
pub mod ping;
pub mod tally;
pub mod topology;
pub mod traffic;
pub mod transfer;

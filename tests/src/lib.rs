//! Shared parts of the tests that need root. They touch only namespaces, devices and pins that they created
//! themselves, under unique names.

pub mod cases;
pub mod fixtures;
pub mod live;
pub mod net;
pub mod run;

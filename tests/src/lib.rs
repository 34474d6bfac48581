//! What the tests that need root share. They touch nothing but namespaces, devices and pins that
//! they made themselves, under names of their own.

pub mod cases;
pub mod fixtures;
pub mod live;
pub mod net;
pub mod run;

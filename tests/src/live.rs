//! Tests of live trunks, each of which runs over several kinds of device.

pub mod shedding;
pub mod steering;
pub mod storm;
pub mod trunk;

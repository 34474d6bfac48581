//! Tests of live trunks that run over several kinds of device.

pub mod shedding;
pub mod steering;
pub mod storm;
pub mod trunk;

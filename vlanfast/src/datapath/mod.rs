//! The border to the kernel: what a device is, which hook to take, and the programs and maps on it.

mod bpf;
pub mod census;
pub mod choose;
pub mod counters;
pub mod device;
mod entries;
pub mod ethtool;
pub mod flows;
pub mod hooks;
mod kernel;
pub mod load;
pub mod pins;
pub mod probe;
pub mod tables;
pub mod trunks;

pub use kernel::check as check_kernel;

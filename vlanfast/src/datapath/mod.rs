//! The border to the kernel: what a device is, which hook to take, and the programs and maps on it.

pub mod choose;
pub mod counters;
pub mod device;
pub mod ethtool;
pub mod flows;
pub mod hooks;
mod kernel;
pub mod load;
pub mod netlink;
pub mod pins;
pub mod tables;

pub use kernel::check as check_kernel;

//! Programs that a test runs, first of all vlanfast, and ways to observe them.

pub mod crash;
pub mod daemon;
pub mod docker;
pub mod foreign_program;
pub mod netlink_stall;
pub mod observe;
pub mod pinned_tables;
pub mod pins;
pub mod program;
pub mod prometheus;
pub mod require;
pub mod residue;
pub mod supervisor;
pub(crate) mod syscall;
pub mod tag_in_metadata;

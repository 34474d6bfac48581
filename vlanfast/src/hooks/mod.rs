//! The hooks of the trunk: XDP, tcx and clsact. Everything that is attached there is pinned, so that a later
//! process can read it, replace it and remove it.

pub mod attach;
mod backoff;
pub mod bpf_syscall;
pub mod choose;
mod clsact;
pub mod device;
mod ethtool;
mod features;
pub mod inspect;
pub mod kind;
pub mod locate;
pub mod offloads;
mod parents;
mod pinned_elsewhere;
mod place;
mod refused;
mod remove;
mod requirements;
mod watch;

pub use kind::{AttachKind, HOOKS};
pub use parents::Parents;
pub use pinned_elsewhere::{pinned_elsewhere, program_ids};
pub use remove::{remove, remove_unpinned};
pub use requirements::check as check_requirements;
pub use watch::Watch;

//! The loader of vlanfast: attaches the BPF programs to a trunk, keeps their maps in sync with the network, and detaches
//! them again.

pub mod cli;
mod clock;
pub mod cmd;
pub mod error;
pub mod hooks;
pub mod maps;
pub mod metrics;
pub mod names;
pub mod netlink;
pub mod notify;
mod output;
pub mod pins;
pub mod reconcile;
pub mod state;
mod stop;

//! The loader of vlanfast: attaches the programs to a trunk, reads their maps, takes them off again.

pub mod cli;
mod clock;
pub mod cmd;
pub mod datapath;
pub mod error;
pub mod heartbeat;
pub mod metrics;
pub mod netlink;
pub mod notify;
mod output;
pub mod reconcile;
pub mod source;
pub mod state;
mod stop;

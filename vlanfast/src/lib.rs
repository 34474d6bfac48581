//! The loader of vlanfast: attaches the programs to a trunk, reads their maps, takes them off again.

pub mod cli;
mod clock;
pub mod cmd;
pub mod datapath;
pub mod error;
mod link;
pub mod metrics;
mod output;
pub mod reconcile;
pub mod source;
pub mod state;

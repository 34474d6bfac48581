//! The verbs of the command line, one file each.

pub mod attach;
pub mod counters;
pub mod detach;
pub mod endpoints;
pub mod flows;
pub mod status;
mod trunks;

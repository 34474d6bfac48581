//! The XDP hook.

mod act;
mod frame;
mod program;

pub use program::trunk;

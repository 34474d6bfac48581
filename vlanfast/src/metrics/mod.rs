//! What Prometheus sees: how it is written, and the server that it scrapes.

pub mod http;
pub mod registry;
mod room;

//! What Prometheus sees: how it is written, and the server that it scrapes.

mod connections;
pub mod http;
pub mod registry;

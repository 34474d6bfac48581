//! Metrics for Prometheus: their text format, and the HTTP server.

mod connections;
pub mod http;
pub mod registry;

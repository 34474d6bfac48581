//! Sources of names for endpoints.

pub mod docker;

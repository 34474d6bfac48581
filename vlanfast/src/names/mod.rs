//! Where state comes from: each source keeps its part of the world up to date. Events are hints, dumps
//! are truth: an event only says what to read anew.

pub mod docker;

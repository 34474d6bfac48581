//! Where state comes from. Events are hints, dumps are truth: an event only says what to read anew.

pub mod netlink;
//! Where state comes from: each source keeps a snapshot of its part of the world up to date.

pub mod docker;

//! Where state comes from. Events are hints, dumps are truth: an event only says what to read anew.

pub mod netlink;

//! What can't be read is not absent, and a signal ends any phase.

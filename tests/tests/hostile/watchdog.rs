//! A process that hangs is noticed, and the next one takes over.

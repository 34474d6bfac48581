//! Any input at all, by generator: no panic, no hang, nothing touched.

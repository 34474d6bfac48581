//! Hooks that others share: taken away, put in front, in the way.

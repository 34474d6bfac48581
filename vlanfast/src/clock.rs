//! Wall-clock time for maps and metrics.

use std::time::{SystemTime, UNIX_EPOCH};

/// Returns the seconds since the Unix epoch, or 0 if the clock is set to an earlier time.
pub fn seconds_since_1970() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH);
    elapsed.map_or(0, |elapsed| elapsed.as_secs())
}

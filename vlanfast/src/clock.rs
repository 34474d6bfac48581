//! The time of day, as maps and metrics have it.

use std::time::{SystemTime, UNIX_EPOCH};

/// 0 on a host that believes in an earlier time.
pub fn seconds_since_1970() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH);
    elapsed.map_or(0, |elapsed| elapsed.as_secs())
}

//! When all processes are searched for network namespaces.

use std::time::Duration;

use tokio::time::Instant;

/// When all processes are searched for a namespace that nobody shows.
#[derive(Debug, Default)]
pub(super) struct Search {
    /// The next time, and the pause after it.
    pub(super) next: Option<(Instant, Duration)>,
    /// The last was for somebody who is there for sure.
    pub(super) for_unseen: bool,
    /// It was said that some processes can't be searched.
    pub(super) said: bool,
}

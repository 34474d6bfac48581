//! The schedule of the search for network namespaces through all processes.

use std::time::Duration;

use tokio::time::Instant;

/// The schedule of the search for namespaces that are neither mounted nor have an id.
#[derive(Debug, Default)]
pub(super) struct Search {
    /// The time of the next search, and the pause after it.
    pub(super) next: Option<(Instant, Duration)>,
    /// The last search was for a receiver that is known to exist.
    pub(super) for_unseen: bool,
    /// A warning was logged that some processes cannot be examined.
    pub(super) warned: bool,
}

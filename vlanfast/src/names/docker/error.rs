//! The ways in which reading names from Docker fails.

use std::{io, time::Duration};

use hyper::StatusCode;
use thiserror::Error;
use vlanfast_common::SourceState;

/// The longest answer that is read. A container takes 1.5 to 2.5 KB of a list, so ten thousand of them fit.
pub const LONGEST_ANSWER: usize = 24 << 20;

/// How long to wait before connecting again to a daemon that is not there or has gone.
pub const RETRY: Duration = Duration::from_secs(1);
/// How long to wait after an answer that cannot be used, because producing it may have been expensive.
pub const RETRY_WRONG: Duration = Duration::from_secs(5);

/// The reasons why there are no names.
#[derive(Debug, Error)]
pub enum Error {
    #[error("no daemon is running")]
    NotRunning,
    #[error("failed to connect: {0}")]
    Connect(#[source] io::Error),
    #[error("failed to ask: {0}")]
    Ask(#[from] hyper::http::Error),
    #[error("the connection failed: {0}")]
    Http(#[from] hyper::Error),
    #[error("the daemon answered {0}")]
    Status(StatusCode),
    #[error("the answer has more than {} MiB", LONGEST_ANSWER >> 20)]
    TooLong,
    #[error("the answer can't be parsed: {0}")]
    Answer(String),
    #[error("the answer has no API version")]
    Version,
    #[error("no answer in time")]
    Timeout,
    #[error("the connection was closed")]
    Ended,
}

impl Error {
    pub fn state(&self) -> SourceState {
        match self {
            Self::NotRunning => SourceState::Absent,
            Self::Connect(error) => refusal(error.kind()),
            Self::Ask(_)
            | Self::Http(_)
            | Self::Status(_)
            | Self::TooLong
            | Self::Answer(_)
            | Self::Version
            | Self::Timeout
            | Self::Ended => SourceState::Unreachable,
        }
    }

    /// Returns how long to wait before the next attempt.
    pub fn retry(&self) -> Duration {
        match self {
            Self::TooLong | Self::Answer(_) | Self::Version | Self::Timeout => RETRY_WRONG,
            Self::NotRunning
            | Self::Connect(_)
            | Self::Ask(_)
            // A connection to a killed daemon ends like this.
            | Self::Http(_)
            | Self::Status(_)
            | Self::Ended => RETRY,
        }
    }
}

/// Returns the state of Docker if its socket cannot be connected to.
pub fn refusal(kind: io::ErrorKind) -> SourceState {
    match kind {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => SourceState::Absent,
        io::ErrorKind::PermissionDenied => SourceState::NotPermitted,
        // The socket exists, but nobody listens on it.
        _ => SourceState::Unreachable,
    }
}

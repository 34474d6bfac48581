//! Sends one HTTP request per connection. The peer is not trusted: reading an answer takes a limited amount of memory,
//! and the caller limits the time.

use std::path::Path;

use http_body_util::{BodyExt, Empty};
use hyper::{
    Request, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1,
    header::HOST,
};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use crate::names::docker::{
    error::{Error, LONGEST_ANSWER},
    read_limit::{LimitedStream, ReadLimit},
    task::Task,
};

/// The minimum that each part of an answer counts for, so that there cannot be too many parts of a single byte.
const PIECE: usize = 64;
/// The size of the read buffer, which also limits the HTTP header.
const BUFFER: usize = 64 << 10;

/// An answer whose header has been received.
pub struct Answer {
    body: Incoming,
    limit: ReadLimit,
    _connection: Task,
}

/// Requests a path.
pub async fn get(socket: &Path, path: &str) -> Result<Answer, Error> {
    let stream = UnixStream::connect(socket).await.map_err(Error::Connect)?;
    let (stream, limit) = LimitedStream::new(stream);
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(BUFFER)
        .handshake(TokioIo::new(stream))
        .await?;
    let connection = Task::new(tokio::spawn(async move {
        // An error is also returned to the caller that waits for the answer.
        let _ = connection.await;
    }));
    let request = Request::get(path)
        .header(HOST, "docker")
        .body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    match response.status() {
        StatusCode::OK => Ok(Answer {
            body: response.into_body(),
            limit,
            _connection: connection,
        }),
        other => Err(Error::Status(other)),
    }
}

impl Answer {
    /// Returns the next part; `None` at the end.
    pub async fn piece(&mut self) -> Result<Option<Bytes>, Error> {
        let Some(frame) = self.body.frame().await.transpose()? else {
            return Ok(None);
        };
        // Trailers are ignored.
        let piece = frame.into_data().unwrap_or_default();
        self.limit.refill(piece.len().max(PIECE));
        Ok(Some(piece))
    }

    /// Returns the complete body.
    pub async fn whole(mut self) -> Result<Vec<u8>, Error> {
        let mut whole = Vec::new();
        let mut counted = 0;
        while let Some(piece) = self.piece().await? {
            counted += piece.len().max(PIECE);
            if counted > LONGEST_ANSWER {
                return Err(Error::TooLong);
            }
            if whole.capacity() < whole.len() + piece.len() {
                // The capacity grows as usual, but never beyond the maximum length.
                let more = (2 * whole.capacity()).clamp(whole.len() + piece.len(), LONGEST_ANSWER);
                whole.reserve_exact(more - whole.len());
            }
            whole.extend_from_slice(&piece);
        }
        Ok(whole)
    }
}

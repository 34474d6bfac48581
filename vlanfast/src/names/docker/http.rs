//! One request on a connection of its own, to somebody who may answer anything: whatever comes costs a
//! bounded amount of memory, and the caller bounds the time.

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

/// What each piece of an answer counts for at least: of pieces of one byte there would be too many.
const PIECE: usize = 64;
/// What is read ahead, and the longest head.
const BUFFER: usize = 64 << 10;

/// An answer whose head has come.
pub struct Answer {
    body: Incoming,
    limit: ReadLimit,
    _connection: Task,
}

/// Asks for a path.
pub async fn get(socket: &Path, path: &str) -> Result<Answer, Error> {
    let stream = UnixStream::connect(socket).await.map_err(Error::Connect)?;
    let (stream, limit) = LimitedStream::new(stream);
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(BUFFER)
        .handshake(TokioIo::new(stream))
        .await?;
    let connection = Task::new(tokio::spawn(async move {
        // What went wrong is seen where the answer is waited for.
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
    /// The next piece; `None` at the end.
    pub async fn piece(&mut self) -> Result<Option<Bytes>, Error> {
        let Some(frame) = self.body.frame().await.transpose()? else {
            return Ok(None);
        };
        // Trailers are no concern of ours.
        let piece = frame.into_data().unwrap_or_default();
        self.limit.refill(piece.len().max(PIECE));
        Ok(Some(piece))
    }

    /// All of it.
    pub async fn whole(mut self) -> Result<Vec<u8>, Error> {
        let mut whole = Vec::new();
        let mut counted = 0;
        while let Some(piece) = self.piece().await? {
            counted += piece.len().max(PIECE);
            if counted > LONGEST_ANSWER {
                return Err(Error::TooLong);
            }
            if whole.capacity() < whole.len() + piece.len() {
                // As it grows anyway, but never to more than there may be.
                let more = (2 * whole.capacity()).clamp(whole.len() + piece.len(), LONGEST_ANSWER);
                whole.reserve_exact(more - whole.len());
            }
            whole.extend_from_slice(&piece);
        }
        Ok(whole)
    }
}

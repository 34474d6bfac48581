//! A stream that fails after too many bytes without content. HTTP headers, chunk sizes and the like could otherwise go
//! on for ever, and each byte costs time.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::UnixStream,
};

/// The maximum number of bytes before the first content, and between contents. It exceeds the read buffer.
const ALLOWANCE: usize = 1 << 20;

/// The number of bytes that may still be read.
#[derive(Clone)]
pub struct ReadLimit(Arc<AtomicUsize>);

impl ReadLimit {
    /// Records that this many of the bytes were content.
    pub fn refill(&self, content: usize) {
        let left = self.0.load(Relaxed).saturating_add(content);
        self.0.store(left.min(ALLOWANCE), Relaxed);
    }
}

pub struct LimitedStream {
    stream: UnixStream,
    limit: ReadLimit,
}

impl LimitedStream {
    pub fn new(stream: UnixStream) -> (Self, ReadLimit) {
        let limit = ReadLimit(Arc::new(AtomicUsize::new(ALLOWANCE)));
        let stream = Self {
            stream,
            limit: limit.clone(),
        };
        (stream, limit)
    }
}

impl AsyncRead for LimitedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let read = buffer.filled().len() - before;
        let left = self.limit.0.load(Relaxed).checked_sub(read);
        let left = left.ok_or_else(|| io::Error::other("too many bytes without content"))?;
        self.limit.0.store(left, Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for LimitedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

//! The netlink socket that sends one request at a time and waits for its answer until a deadline.
//!
//! rtnetlink computes its answers inside our own `send` and `recv` calls, so silence means that no answer will come.
//! After a timeout, or after a request was abandoned half-way, the next request uses a new socket: on the old one the
//! kernel would refuse it (`EBUSY`) or still be answering the previous request.

mod reply;
#[cfg(test)]
mod tests;

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd},
    time::Duration,
};

use anyhow::Context;
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};
use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, recv, send},
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::Mutex,
    task::yield_now,
    time::{Instant, timeout_at},
};

use super::{failure::Failure, request::Request};
pub use crate::netlink::query::reply::{Message, messages};
use crate::{netlink::query::reply::Reply, stop};

/// How long to wait for the next datagram: normally, and after a request that the kernel did not answer. A detach sends
/// a dozen requests and must still end soon.
const SILENCE: Duration = Duration::from_millis(500);
const AFTER_SILENCE: Duration = Duration::from_millis(50);
/// The time limit for a complete answer.
const LIMIT: Duration = Duration::from_secs(30);
/// The size of the receive buffer. The kernel fills at most half of it per datagram (`netlink_recvmsg`).
const DATAGRAM: usize = 64 << 10;

type Open = dyn Fn() -> io::Result<OwnedFd> + Send + Sync;

/// A connection to rtnetlink in the network namespace of this process.
pub struct Netlink {
    open: Box<Open>,
    talk: Mutex<Talk>,
}

struct Talk {
    /// `None` if the next request has to open a new socket.
    socket: Option<AsyncFd<OwnedFd>>,
    /// The sequence number of the last request, which tells its answer from late answers to earlier ones.
    number: u32,
    silence: Duration,
    buffer: Vec<u8>,
}

impl Netlink {
    pub fn connect() -> anyhow::Result<Self> {
        // Opening the first socket here reports a system without netlink at once.
        let first = kernel().context("failed to open a netlink socket")?;
        let netlink = Self::behind(kernel);
        netlink.with_socket(first)
    }

    /// Uses the sockets that `open` returns. Tests pass sockets whose other end plays the kernel.
    pub fn behind(open: impl Fn() -> io::Result<OwnedFd> + Send + Sync + 'static) -> Self {
        Self {
            open: Box::new(open),
            talk: Mutex::new(Talk {
                socket: None,
                number: 0,
                silence: SILENCE,
                buffer: vec![0; DATAGRAM],
            }),
        }
    }

    fn with_socket(mut self, socket: OwnedFd) -> anyhow::Result<Self> {
        let socket = register(socket).context("failed to wait for netlink")?;
        self.talk.get_mut().socket = Some(socket);
        Ok(self)
    }

    /// Sends a request and calls `each` for every message of the answer. Returns whether the answer is complete:
    /// nothing changed during the dump, nothing was truncated, and everything parsed as a message. Safe to cancel.
    pub async fn ask(
        &self,
        request: &Request,
        mut each: impl FnMut(Message<'_>),
    ) -> Result<bool, Failure> {
        let mut talk = self.talk.lock().await;
        match talk.ask(&self.open, request, &mut each).await {
            // A previous dump has not ended on this socket. A new socket has none.
            Err(Failure::Refused(Errno::EBUSY, _)) if request.is_dump() => {
                talk.socket = None;
                talk.ask(&self.open, request, &mut each).await
            }
            answered => answered,
        }
    }
}

impl Talk {
    async fn ask(
        &mut self,
        open: &Open,
        request: &Request,
        each: &mut impl FnMut(Message<'_>),
    ) -> Result<bool, Failure> {
        // The socket is put back only after a complete exchange; until then, the next request opens a new one.
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => open().and_then(register).map_err(Failure::Socket)?,
        };
        self.number = self.number.wrapping_add(1);
        let bytes = request.bytes(self.number);
        let start = Instant::now();
        // The kernel computes its answer inside this call, once it holds the RTNL lock.
        stop::in_kernel(|| say(&socket, &bytes)).map_err(Failure::Socket)?;
        let mut heard = Reply::new(self.number);
        let mut last = start;
        loop {
            let until = (last + self.silence).min(start + LIMIT);
            let length = self.hear(&socket, until).await?;
            if length == 0 {
                return Err(Failure::Socket(io::ErrorKind::UnexpectedEof.into()));
            }
            let datagram = &self.buffer[..length.min(self.buffer.len())];
            let is_ours = heard.take(datagram, length > datagram.len(), each);
            if is_ours {
                last = Instant::now();
                self.silence = SILENCE;
            }
            if let Some(end) = heard.end.take() {
                // After a truncated message, what is left in the socket could be taken for the next answer.
                if heard.in_order() {
                    self.socket = Some(socket);
                }
                return end.map(|()| heard.whole);
            }
            let now = Instant::now();
            if now >= start + LIMIT || !is_ours && now >= until {
                self.silence = AFTER_SILENCE;
                return Err(Failure::Silent);
            }
            // Long answers must not delay signals and heartbeats.
            yield_now().await;
        }
    }

    /// Receives one datagram and returns its length, which may exceed the buffer.
    async fn hear(&mut self, socket: &AsyncFd<OwnedFd>, until: Instant) -> Result<usize, Failure> {
        loop {
            // The answer is usually there already.
            match receive(socket.get_ref(), &mut self.buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                heard => return heard.map_err(Failure::Socket),
            }
            if Instant::now() >= until {
                self.silence = AFTER_SILENCE;
                return Err(Failure::Silent);
            }
            if let Ok(ready) = timeout_at(until, socket.readable()).await {
                let mut ready = ready.map_err(Failure::Socket)?;
                let heard = ready.try_io(|socket| receive(socket.get_ref(), &mut self.buffer));
                if let Ok(heard) = heard {
                    return heard.map_err(Failure::Socket);
                }
            }
        }
    }
}

fn say(socket: &AsyncFd<OwnedFd>, bytes: &[u8]) -> io::Result<()> {
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    loop {
        match send(socket.as_raw_fd(), bytes, flags) {
            Err(Errno::EINTR) => {}
            sent => return Ok(sent.map(drop)?),
        }
    }
}

fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<usize> {
    // MSG_TRUNC returns the real length even if the datagram was cut off.
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
    loop {
        match recv(socket.as_raw_fd(), buffer, flags) {
            Err(Errno::EINTR) => {}
            received => return Ok(received?),
        }
    }
}

fn register(socket: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the socket owns its descriptor, and keeps it open until it is dropped.
    let registered = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
    registered.map_err(io::Error::from)
}

/// Opens a netlink socket to the kernel.
fn kernel() -> io::Result<OwnedFd> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.set_non_blocking(true)?;
    // Without strict checking, dumps of addresses ignore which namespace is asked about.
    socket.set_netlink_get_strict_chk(true)?;
    // Extended ACKs carry error messages (from Linux 4.12).
    let _ = socket.set_ext_ack(true).and(socket.set_cap_ack(true));
    // SAFETY: the socket gave up its descriptor, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(socket.into_raw_fd()) })
}

//! The socket for questions and orders, one at a time. Each ends with an answer, or at a deadline.
//!
//! rtnetlink computes its answers inside our own calls to send and receive, so silence means that none will
//! come. After one, and wherever a question was left in its middle, the next has a new socket: on the old one
//! the kernel would refuse it (`EBUSY`), or answer the one before.

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

/// How long the kernel may say nothing, and how long once it has said nothing to a question before: taking
/// everything off is a dozen questions, and has to end all the same.
const SILENCE: Duration = Duration::from_millis(500);
const AFTER_SILENCE: Duration = Duration::from_millis(50);
/// How long a whole answer may take.
const LIMIT: Duration = Duration::from_secs(30);
/// The kernel fills no more than half of this at once (`netlink_recvmsg`).
const DATAGRAM: usize = 64 << 10;

type Open = dyn Fn() -> io::Result<OwnedFd> + Send + Sync;

/// Where the kernel is asked, and told what to do.
pub struct Netlink {
    open: Box<Open>,
    talk: Mutex<Talk>,
}

struct Talk {
    /// `None` where the next question needs a new one.
    socket: Option<AsyncFd<OwnedFd>>,
    /// Tells the answers to the last question from late ones to another.
    number: u32,
    silence: Duration,
    buffer: Vec<u8>,
}

impl Netlink {
    pub fn connect() -> anyhow::Result<Self> {
        // Now, so that a system without netlink says so here.
        let first = kernel().context("failed to open a netlink socket")?;
        let netlink = Self::behind(kernel);
        netlink.with_socket(first)
    }

    /// To whoever is at the other end of the sockets that are opened: in tests, somebody who plays the kernel.
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

    /// Asks, and hands over each message of the answer; whether the answer is whole: nothing changed while the
    /// kernel gave it, nothing was cut off, everything was a message. Cancelled, it leaves nothing behind.
    pub async fn ask(
        &self,
        request: &Request,
        mut each: impl FnMut(Message<'_>),
    ) -> Result<bool, Failure> {
        let mut talk = self.talk.lock().await;
        match talk.ask(&self.open, request, &mut each).await {
            // Somebody's dump is not over, though it was to be: not on a new socket.
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
        // Taken, and given back at the end of an answer: whatever comes before that, the next has a new one.
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => open().and_then(register).map_err(Failure::Socket)?,
        };
        self.number = self.number.wrapping_add(1);
        let bytes = request.bytes(self.number);
        let start = Instant::now();
        // The kernel computes its answer in here, once it has its lock.
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
                // What is left of a message that was cut off is another question's.
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
            // Signals and heartbeats have their turn, however long the answer is.
            yield_now().await;
        }
    }

    /// One datagram's length, which may be more than there was room for.
    async fn hear(&mut self, socket: &AsyncFd<OwnedFd>, until: Instant) -> Result<usize, Failure> {
        loop {
            // The answer is there already, most of the time.
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
    // The datagram's own length, however much of it there is room for.
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

/// A socket to the kernel.
fn kernel() -> io::Result<OwnedFd> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.set_non_blocking(true)?;
    // Without strict checking, dumps of addresses ignore which namespace is asked about.
    socket.set_netlink_get_strict_chk(true)?;
    // Reasons in words (before Linux 4.12: none).
    let _ = socket.set_ext_ack(true).and(socket.set_cap_ack(true));
    // SAFETY: the descriptor was the socket's, and is nobody's now.
    Ok(unsafe { OwnedFd::from_raw_fd(socket.into_raw_fd()) })
}

//! Notifies the supervisor by the protocol of sd_notify(3): that the process is ready, what its status is, and that it
//! is alive.
//!
//! The crate `sd-notify` (0.5) is not used, because it treats the name of an abstract socket as a path, blocks while a
//! supervisor does not read, and looks up the socket in the environment for each message.

use std::{
    env,
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    process,
    time::Duration,
};

/// How long sending may block until the supervisor knows that we are ready. Later messages are sent without blocking
/// and may be lost.
const PATIENCE: Duration = Duration::from_secs(1);

/// The supervisor that started us, if there is one. It is not an error if it does not listen any more.
#[derive(Debug, Default)]
pub struct Supervisor {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Supervisor {
    /// Connects to the supervisor that the environment names. The variables stay set, because this process starts no
    /// other.
    pub fn of_environment() -> Self {
        let number = |name| env::var(name).ok();
        Self {
            socket: env::var_os("NOTIFY_SOCKET").and_then(|name| open(&name).ok()),
            watchdog: watchdog(
                number("WATCHDOG_USEC"),
                number("WATCHDOG_PID"),
                process::id(),
            ),
        }
    }

    /// Returns the interval within which the supervisor expects a keep-alive message.
    pub const fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// Reports that the start is complete, with a status text.
    pub fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\n{}", line(status)));
        if let Some((socket, _)) = &self.socket {
            // Later messages must not block.
            let _ = socket.set_nonblocking(true);
        }
    }

    /// Reports a status text.
    pub fn status(&self, status: &str) {
        self.tell(&line(status));
    }

    /// Sends a keep-alive message, if the supervisor expects one.
    pub fn feed(&self) {
        if self.watchdog.is_some() {
            self.tell("WATCHDOG=1");
        }
    }

    /// Reports that the process is about to end.
    pub fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    fn tell(&self, message: &str) {
        if let Some((socket, address)) = &self.socket {
            let _ = socket.send_to_addr(message.as_bytes(), address);
        }
    }
}

/// Formats a status message. A line end would end the variable, so it is replaced.
fn line(status: &str) -> String {
    format!("STATUS={}", status.replace('\n', " "))
}

fn open(name: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = address(name)?;
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok((socket, address))
}

/// Parses the address of the socket: a path, or a name in the abstract namespace after an `@`.
fn address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        [b'/', ..] => SocketAddr::from_pathname(name),
        _ => Err(io::ErrorKind::Unsupported.into()),
    }
}

/// Parses the watchdog interval; `None` if the variables are meant for another process.
fn watchdog(usec: Option<String>, pid: Option<String>, own: u32) -> Option<Duration> {
    let is_ours = match pid {
        Some(pid) => pid.parse() == Ok(own),
        None => true,
    };
    let usec = usec?.parse().ok().filter(|&usec| usec > 0)?;
    is_ours.then_some(Duration::from_micros(usec))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn named(name: impl AsRef<OsStr>) -> Supervisor {
        Supervisor {
            socket: open(name.as_ref()).ok(),
            watchdog: Some(Duration::from_secs(10)),
        }
    }

    fn heard(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 256];
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let length = socket.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    fn check_messages(supervisor: &Supervisor, socket: &UnixDatagram) {
        supervisor.ready("eth0: attached\nand so on");
        assert_eq!(heard(socket), "READY=1\nSTATUS=eth0: attached and so on");
        supervisor.feed();
        assert_eq!(heard(socket), "WATCHDOG=1");
        supervisor.status("well");
        assert_eq!(heard(socket), "STATUS=well");
        supervisor.stopping();
        assert_eq!(heard(socket), "STOPPING=1");
    }

    #[test]
    fn messages_arrive_at_a_path_and_at_an_abstract_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        check_messages(&named(&path), &UnixDatagram::bind(&path).unwrap());
        let name = format!("vlanfast-test-{}", process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        check_messages(&named(format!("@{name}")), &socket);
    }

    #[test]
    fn a_missing_supervisor_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let supervisor = named(&path);
        drop(socket);
        supervisor.ready("well");
        std::fs::remove_file(&path).unwrap();
        supervisor.feed();
        let long = "@".repeat(200);
        for name in [
            "",
            "@",
            "vsock:2:1234",
            "relative",
            "/nowhere/at/all",
            &long,
        ] {
            let supervisor = named(name);
            supervisor.ready("well");
            supervisor.feed();
            supervisor.stopping();
        }
    }

    #[test]
    fn a_supervisor_that_does_not_read_does_not_block_us() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let _deaf = UnixDatagram::bind(&path).unwrap();
        let supervisor = named(&path);
        supervisor.ready("well");
        let begin = Instant::now();
        // This is far more than the kernel queues for a socket.
        (0..10_000).for_each(|_| supervisor.feed());
        assert!(begin.elapsed() < PATIENCE, "{:?}", begin.elapsed());
    }

    #[test]
    fn a_watchdog_is_for_the_process_that_it_names() {
        let text = |text: &str| Some(text.to_owned());
        let ten = Some(Duration::from_secs(10));
        assert_eq!(watchdog(text("10000000"), None, 7), ten);
        assert_eq!(watchdog(text("10000000"), text("7"), 7), ten);
        for (usec, pid) in [
            (None, None),
            (None, text("7")),
            (text("10000000"), text("8")),
            (text("10000000"), text("")),
            (text("0"), text("7")),
            (text("-1"), None),
            (text("ten"), None),
            (text("99999999999999999999"), None),
        ] {
            assert_eq!(watchdog(usec, pid, 7), None);
        }
    }

    #[test]
    fn without_a_watchdog_no_keep_alive_is_sent() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let unwatched = Supervisor {
            watchdog: None,
            ..named(&path)
        };
        unwatched.feed();
        unwatched.stopping();
        assert_eq!(heard(&socket), "STOPPING=1");
    }
}

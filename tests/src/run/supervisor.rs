//! A service manager for a test: the receiving end of sd_notify(3).

use std::{
    fs,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            fs::PermissionsExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::{
    net::namespace::{Netns, in_netns, unique},
    run::program::binary,
};

/// This is longer than anything takes under emulation.
const PATIENCE: Duration = Duration::from_secs(60);

/// A notification socket, and a way to start vlanfast with it.
pub struct Supervisor {
    socket: UnixDatagram,
    /// The socket's address as the environment variable states it.
    name: String,
    dir: TempDir,
}

/// The process for which the watchdog is meant, according to the environment.
#[derive(Clone, Copy, Debug)]
pub enum Watched {
    Itself,
    Other,
    Nobody,
}

impl Supervisor {
    /// Listens at a path.
    pub fn at_path() -> Result<Self> {
        let dir = TempDir::new().context("failed to make a directory")?;
        let path = dir.path().join("notify");
        Ok(Self {
            socket: UnixDatagram::bind(&path)?,
            name: path.display().to_string(),
            dir,
        })
    }

    /// Listens at an abstract address, which belongs to a network namespace.
    pub fn at_name(netns: &Netns) -> Result<Self> {
        let name = unique();
        let address = SocketAddr::from_abstract_name(&name)?;
        Ok(Self {
            socket: in_netns(&netns.path(), move || {
                Ok(UnixDatagram::bind_addr(&address)?)
            })?,
            name: format!("@{name}"),
            dir: TempDir::new().context("failed to make a directory")?,
        })
    }

    /// Writes a script that runs vlanfast with the environment of a service.
    pub fn program(&self, watched: Watched, patience: Duration) -> Result<String> {
        let pid = match watched {
            Watched::Itself => "WATCHDOG_PID=$$",
            Watched::Other => "WATCHDOG_PID=1",
            Watched::Nobody => "",
        };
        let usec = match watched {
            Watched::Nobody => String::new(),
            _ => format!("WATCHDOG_USEC={}", patience.as_micros()),
        };
        let path: PathBuf = self.dir.path().join("vlanfast");
        let (name, binary) = (&self.name, binary());
        // `exec` keeps the process id of the shell.
        let script = format!("#!/bin/sh\nNOTIFY_SOCKET={name} {usec} {pid} exec {binary} \"$@\"\n");
        fs::write(&path, script)?;
        fs::set_permissions(&path, PermissionsExt::from_mode(0o755))?;
        Ok(path.display().to_string())
    }

    /// Returns the next message, if it arrives in time.
    pub fn next(&self, patience: Duration) -> Result<Option<String>> {
        self.socket.set_read_timeout(Some(patience))?;
        let mut bytes = [0; 4096];
        match self.socket.recv(&mut bytes) {
            Ok(length) => Ok(Some(String::from_utf8(bytes[..length].to_vec())?)),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error).context("failed to receive"),
        }
    }

    /// Waits for a message with a line that has a prefix; fails with the messages that came instead.
    pub fn hears(&self, line: &str) -> String {
        let (start, mut heard) = (Instant::now(), vec![]);
        while start.elapsed() < PATIENCE {
            let message = self.next(PATIENCE).expect("the socket is ours");
            let Some(message) = message else { break };
            if message.lines().any(|found| found.starts_with(line)) {
                return message;
            }
            heard.push(message);
        }
        panic!("never came: {line}; but {heard:?}");
    }

    /// Discards the messages that have arrived so far.
    pub fn forget(&self) {
        while self
            .next(Duration::from_millis(1))
            .expect("the socket is ours")
            .is_some()
        {}
    }

    /// Waits until no watchdog message has arrived for the given time, after which a supervisor acts.
    pub fn misses_it(&self, patience: Duration) {
        let (start, mut last) = (Instant::now(), Instant::now());
        while last.elapsed() < patience {
            assert!(start.elapsed() < PATIENCE, "there still are signs of life");
            let rest = patience.saturating_sub(last.elapsed());
            let rest = rest.max(Duration::from_millis(1));
            let message = self.next(rest).expect("the socket is ours");
            if message.is_some_and(|message| message.contains("WATCHDOG=1")) {
                last = Instant::now();
            }
        }
    }
}

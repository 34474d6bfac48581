//! Whoever starts a service and listens to how it does: the other end of sd_notify(3).

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

/// Longer than anything takes under emulation.
const PATIENCE: Duration = Duration::from_secs(60);

/// A socket of its own, and a way to start vlanfast with it.
pub struct Supervisor {
    socket: UnixDatagram,
    /// As the environment has it.
    name: String,
    dir: TempDir,
}

/// For whom the watchdog is, by the environment.
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

    /// Listens at an abstract name, which belongs to a network namespace.
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

    /// A program that is vlanfast with the environment of a service.
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
        // What a shell executes keeps its process's number.
        let script = format!("#!/bin/sh\nNOTIFY_SOCKET={name} {usec} {pid} exec {binary} \"$@\"\n");
        fs::write(&path, script)?;
        fs::set_permissions(&path, PermissionsExt::from_mode(0o755))?;
        Ok(path.display().to_string())
    }

    /// The next message, if it comes in time.
    pub fn next(&self, patience: Duration) -> Result<Option<String>> {
        self.socket.set_read_timeout(Some(patience))?;
        let mut bytes = [0; 4096];
        match self.socket.recv(&mut bytes) {
            Ok(length) => Ok(Some(String::from_utf8(bytes[..length].to_vec())?)),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error).context("failed to receive"),
        }
    }

    /// Waits for a message with a line that begins so; fails with what came instead.
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

    /// Forgets what has come by now.
    pub fn forget(&self) {
        while self
            .next(Duration::from_millis(1))
            .expect("the socket is ours")
            .is_some()
        {}
    }

    /// Waits until no sign of life has come for so long: then a supervisor acts.
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

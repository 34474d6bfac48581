//! Docker's names, read over its socket. They only dress up what netlink shows: whatever goes wrong
//! here is a state to report, never an error that ends anything.
//!
//! Events are hints, lists are truth: an event only says that it is time for a new list, so a lost one
//! costs a moment.

mod api;
#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;

use std::{
    convert::Infallible,
    env, fmt, fs, io,
    path::{Path, PathBuf},
    pin::pin,
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use futures_util::StreamExt;
use thiserror::Error;
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use vlanfast_common::{SourceState, SourceStatus};

use crate::{clock::seconds_since_1970, state::snapshot::Docker};
use api::Client;

const DEFAULT_SOCKET: &str = "/var/run/docker.sock";
/// Where dockerd leaves its number for as long as it runs.
const PID_FILES: [&str; 2] = ["/var/run/docker.pid", "/run/docker.pid"];

/// Until a daemon that is not there, or gone, is looked for again.
const RETRY: Duration = Duration::from_secs(1);
/// For a daemon that ended our connection to end itself: it stops containers first, 15 s by default.
const SHUTDOWN: Duration = Duration::from_secs(20);
/// Docker tells of one `docker run` in several events; one list is enough for them.
const SETTLE: Duration = Duration::from_millis(20);
/// Without an event: so that a daemon that hangs is noticed, and `last_success` means something.
const RELIST: Duration = Duration::from_secs(30);
/// How long one list may take, and how long an answer to any request.
const LIMIT: Duration = Duration::from_secs(10);

/// Whose names the user wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Wish {
    /// Those of the daemon that `docker` itself would ask, if it is on this host.
    #[default]
    Auto,
    Off,
    Socket(PathBuf),
}

impl FromStr for Wish {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "off" => Ok(Self::Off),
            _ => match local(text) {
                // A misspelt word is no path.
                Some(path) if path.contains('/') => Ok(Self::Socket(path.into())),
                _ => Err("expected auto, off, or the path of Docker's socket"),
            },
        }
    }
}

impl fmt::Display for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.pad("auto"),
            Self::Off => f.pad("off"),
            Self::Socket(path) => path.display().fmt(f),
        }
    }
}

impl Wish {
    /// Whom to ask, if anybody.
    fn daemon(&self) -> Option<Daemon> {
        match self {
            Self::Auto => {
                let socket = default_socket(env::var("DOCKER_HOST").ok().as_deref());
                Some(daemon_at(socket))
            }
            Self::Off => None,
            Self::Socket(path) => Some(Daemon {
                socket: path.clone(),
                pid_files: None,
            }),
        }
    }
}

/// Whom to ask.
struct Daemon {
    socket: PathBuf,
    /// One of them is there while the daemon runs, and until then it is not asked: to connect would
    /// start one that its admin has stopped, where systemd listens for it (`docker.socket`). `None` for
    /// a daemon that is to be asked in any case.
    pid_files: Option<[PathBuf; 2]>,
}

impl Daemon {
    /// Which daemon runs: another number after a restart, and none where that doesn't matter.
    fn pid(&self) -> Result<Option<String>, Error> {
        let Some(files) = &self.pid_files else {
            return Ok(None);
        };
        let pid = files.iter().find_map(|file| fs::read_to_string(file).ok());
        pid.map(Some).ok_or(Error::NotRunning)
    }
}

/// Another's socket, Podman's say, has no such file.
fn daemon_at(socket: PathBuf) -> Daemon {
    let dockerds = [DEFAULT_SOCKET, "/run/docker.sock"].map(Path::new);
    Daemon {
        pid_files: dockerds
            .contains(&socket.as_path())
            .then(|| PID_FILES.map(PathBuf::from)),
        socket,
    }
}

/// A daemon elsewhere (`tcp:`, `ssh:`) knows nothing of this host's containers.
fn default_socket(docker_host: Option<&str>) -> PathBuf {
    docker_host
        .filter(|host| host.starts_with("unix://"))
        .and_then(local)
        .unwrap_or(DEFAULT_SOCKET)
        .into()
}

/// The path of a socket, given as such or as Docker writes it: `unix:///run/docker.sock`.
fn local(address: &str) -> Option<&str> {
    let path = address.strip_prefix("unix://").unwrap_or(address);
    (!path.is_empty() && !path.contains("://")).then_some(path)
}

/// What Docker said last, and how it does now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// Kept while Docker is away: its containers often outlive it.
    pub docker: Arc<Docker>,
    pub status: SourceStatus,
}

/// The task that watches; it ends with this.
#[derive(Debug)]
pub struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Watches Docker from now on. The receiver's end never closes before the task is dropped, also where
/// there is nothing to watch.
pub fn watch(wish: Wish) -> (Task, watch::Receiver<State>) {
    watch_daemon(wish.daemon())
}

fn watch_daemon(daemon: Option<Daemon>) -> (Task, watch::Receiver<State>) {
    let first = match daemon {
        Some(_) => SourceState::Starting,
        None => SourceState::Off,
    };
    let (sender, receiver) = watch::channel(State {
        status: status(first),
        ..State::default()
    });
    let task = tokio::spawn(async move {
        match daemon {
            Some(daemon) => keep_watching(&daemon, &sender).await,
            None => std::future::pending().await,
        }
    });
    (Task(task), receiver)
}

/// Asks once; without an answer in time there are no names.
pub async fn list_once(wish: &Wish, limit: Duration) -> (Docker, SourceStatus) {
    let Some(daemon) = wish.daemon() else {
        return (Docker::default(), status(SourceState::Off));
    };
    let ask = async {
        daemon.pid()?;
        Client::connect(&daemon.socket, limit).await?.list().await
    };
    match timeout(limit, ask).await.unwrap_or(Err(Error::Timeout)) {
        Ok(docker) => (docker, success()),
        Err(error) => (Docker::default(), status(error.state())),
    }
}

async fn keep_watching(daemon: &Daemon, sender: &watch::Sender<State>) {
    // The daemon that ended our session, and when: it may be about to end, with its file still there.
    let mut ending: Option<(String, Instant)> = None;
    loop {
        let is_ending = |pid: &str| {
            ending
                .as_ref()
                .is_some_and(|(of, since)| of == pid && since.elapsed() < SHUTDOWN)
        };
        let error = match daemon.pid() {
            Ok(Some(pid)) if is_ending(&pid) => Error::Ended,
            Ok(pid) => {
                let Err(error) = session(&daemon.socket, sender).await;
                let answered = sender.borrow().status.state == SourceState::Ok as u32;
                ending = pid.filter(|_| answered).zip(Some(Instant::now()));
                error
            }
            Err(error) => error,
        };
        let state = error.state() as u32;
        // Nobody needs to hear once a second that nothing has changed.
        sender.send_if_modified(|known| {
            let changed = known.status.state != state;
            if changed {
                log::debug!("docker at {}: {error}", daemon.socket.display());
                known.status.state = state;
            }
            changed
        });
        sleep(RETRY).await;
    }
}

/// One connection's life: it ends with an error, be it that Docker was stopped.
async fn session(socket: &Path, sender: &watch::Sender<State>) -> Result<Infallible, Error> {
    let client = timeout(LIMIT, Client::connect(socket, LIMIT))
        .await
        .unwrap_or(Err(Error::Timeout))?;
    let due = Notify::new();
    let hear = async {
        let mut events = pin!(client.events());
        while let Some(event) = events.next().await {
            event?;
            due.notify_one();
        }
        Err(Error::Ended)
    };
    let look = async {
        loop {
            let docker = timeout(LIMIT, client.list())
                .await
                .unwrap_or(Err(Error::Timeout))?;
            sender.send_replace(State {
                docker: Arc::new(docker),
                status: success(),
            });
            if timeout(RELIST, due.notified()).await.is_ok() {
                sleep(SETTLE).await;
            }
        }
    };
    // Events are asked for first. One that comes during a list leaves its mark for the next.
    tokio::select! {
        biased;
        end = hear => end,
        end = look => end,
    }
}

fn status(state: SourceState) -> SourceStatus {
    SourceStatus {
        state: state as u32,
        ..SourceStatus::default()
    }
}

fn success() -> SourceStatus {
    SourceStatus {
        last_success: seconds_since_1970(),
        ..status(SourceState::Ok)
    }
}

/// Why there are no names.
#[derive(Debug, Error)]
enum Error {
    #[error("no daemon runs")]
    NotRunning,
    #[error("failed to connect: {0}")]
    Connect(#[source] io::Error),
    #[error("failed to ask: {0}")]
    Api(#[from] bollard::errors::Error),
    #[error("no answer in time")]
    Timeout,
    #[error("the connection was closed")]
    Ended,
}

impl Error {
    fn state(&self) -> SourceState {
        match self {
            Self::NotRunning => SourceState::Absent,
            Self::Connect(error) => refusal(error.kind()),
            Self::Api(_) | Self::Timeout | Self::Ended => SourceState::Unreachable,
        }
    }
}

/// What a socket that can't be connected to says of Docker.
fn refusal(kind: io::ErrorKind) -> SourceState {
    match kind {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => SourceState::Absent,
        io::ErrorKind::PermissionDenied => SourceState::NotPermitted,
        // The socket is there, and nobody behind it.
        _ => SourceState::Unreachable,
    }
}

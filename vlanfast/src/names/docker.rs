//! Reads names from Docker over its socket. The names only describe what netlink shows, so a failure here is a state to
//! report and never ends the process.
//!
//! An event only causes a new list of networks and containers to be read, so a lost event causes a delay but no wrong
//! names.
//!
//! The peer on the socket is not trusted. Reading an answer takes at most 64 MiB of memory and [`LIMIT`] of time, and a
//! flood of events causes only a bounded number of lists.

mod answer;
mod api;
mod error;
#[cfg(test)]
mod fake;
#[cfg(test)]
mod hostile;
mod http;
mod read_limit;
mod task;
#[cfg(test)]
mod tests;

use std::{
    convert::Infallible,
    env, fmt, fs,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, timeout},
};
use vlanfast_common::{SourceState, SourceStatus};

pub use self::task::Task;
use self::{api::Client, error::Error};
use crate::{clock::seconds_since_1970, state::snapshot::Docker};

const DEFAULT_SOCKET: &str = "/var/run/docker.sock";
/// The files in which dockerd stores its process id as long as it runs.
const PID_FILES: [&str; 2] = ["/var/run/docker.pid", "/run/docker.pid"];

/// How long a daemon may take to end after it closed our connection. It stops containers first, for 15 s by default.
const SHUTDOWN: Duration = Duration::from_secs(20);
/// How long to wait for more events before reading a list. Docker sends several events for one `docker run`.
const SETTLE: Duration = Duration::from_millis(20);
/// The longest such wait, which is reached while events keep coming.
const SETTLE_MOST: Duration = Duration::from_secs(1);
/// After a list, the pause is this many times the time that it took, so that lists take at most a fifth of the time.
const REST: u32 = 4;
/// After this many event messages in a row, reading pauses for a moment. All of them have the same effect.
const BURST: usize = 100;
const BREATH: Duration = Duration::from_millis(50);
/// How often a list is read without an event, so that a daemon that hangs is noticed and `last_success` stays current.
const RELIST: Duration = Duration::from_secs(30);
/// The time limit for a list, and for the answer to any request.
const LIMIT: Duration = Duration::from_secs(10);

/// The daemon whose names are used (`--docker`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DockerSocket {
    /// The daemon that the `docker` command would use, if it is on this host.
    #[default]
    Auto,
    Off,
    Socket(PathBuf),
}

impl FromStr for DockerSocket {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "off" => Ok(Self::Off),
            _ => match local(text) {
                // A single word is more likely a typing error than a path.
                Some(path) if path.contains('/') => Ok(Self::Socket(path.into())),
                _ => Err("expected auto, off, or the path of Docker's socket"),
            },
        }
    }
}

impl fmt::Display for DockerSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.pad("auto"),
            Self::Off => f.pad("off"),
            Self::Socket(path) => path.display().fmt(f),
        }
    }
}

impl DockerSocket {
    /// Returns the daemon to ask, if any.
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

/// A daemon to ask.
struct Daemon {
    socket: PathBuf,
    /// The daemon runs if one of these files exists, and is not asked otherwise: connecting would start a daemon that
    /// was stopped on purpose, if systemd listens on its socket (`docker.socket`). `None` for a daemon that is asked in
    /// any case.
    pid_files: Option<[PathBuf; 2]>,
}

impl Daemon {
    /// Returns the process id, which tells one run of the daemon from another; `None` for a daemon without such a file.
    fn pid(&self) -> Result<Option<String>, Error> {
        let Some(files) = &self.pid_files else {
            return Ok(None);
        };
        let pid = files.iter().find_map(|file| fs::read_to_string(file).ok());
        pid.map(Some).ok_or(Error::NotRunning)
    }
}

/// Returns the daemon behind a socket. Only dockerd's own socket has a file with a process id; Podman's has none.
fn daemon_at(socket: PathBuf) -> Daemon {
    let dockerds = [DEFAULT_SOCKET, "/run/docker.sock"].map(Path::new);
    Daemon {
        pid_files: dockerds
            .contains(&socket.as_path())
            .then(|| PID_FILES.map(PathBuf::from)),
        socket,
    }
}

/// Returns the socket that `DOCKER_HOST` names. A remote daemon (`tcp:`, `ssh:`) knows nothing about this host's
/// containers and is not used.
fn default_socket(docker_host: Option<&str>) -> PathBuf {
    docker_host
        .filter(|host| host.starts_with("unix://"))
        .and_then(local)
        .unwrap_or(DEFAULT_SOCKET)
        .into()
}

/// Returns the path of a local socket, given as a path or in Docker's notation (`unix:///run/docker.sock`).
fn local(address: &str) -> Option<&str> {
    let path = address.strip_prefix("unix://").unwrap_or(address);
    (!path.is_empty() && !path.contains("://")).then_some(path)
}

/// The last list that Docker returned, and the state of the connection.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// The list is kept while Docker is away, because containers often outlive it.
    pub docker: Arc<Docker>,
    pub status: SourceStatus,
}

/// Starts to watch Docker. The channel stays open until the task is dropped, even if there is nothing to watch.
pub fn watch(socket: DockerSocket) -> (Task, watch::Receiver<State>) {
    watch_daemon(socket.daemon(), LIMIT)
}

fn watch_daemon(daemon: Option<Daemon>, limit: Duration) -> (Task, watch::Receiver<State>) {
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
            Some(daemon) => keep_watching(&daemon, limit, &sender).await,
            None => std::future::pending().await,
        }
    });
    (Task::new(task), receiver)
}

/// Reads one list. If there is no answer in time, the list is empty.
pub async fn list_once(socket: &DockerSocket, limit: Duration) -> (Docker, SourceStatus) {
    let Some(daemon) = socket.daemon() else {
        return (Docker::default(), status(SourceState::Off));
    };
    let ask = async {
        daemon.pid()?;
        Client::connect(daemon.socket).await?.list().await
    };
    match within(limit, ask).await {
        Ok(docker) => (docker, success()),
        Err(error) => (Docker::default(), status(error.state())),
    }
}

async fn keep_watching(daemon: &Daemon, limit: Duration, sender: &watch::Sender<State>) {
    // The daemon that closed our connection, and when. It may be about to end, although its file still exists.
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
                let Err(error) = session(&daemon.socket, limit, sender).await;
                let answered = sender.borrow().status.state == SourceState::Ok as u32;
                ending = pid.filter(|_| answered).zip(Some(Instant::now()));
                error
            }
            Err(error) => error,
        };
        let state = error.state() as u32;
        // Receivers are notified only of a change, not of every failed attempt.
        sender.send_if_modified(|known| {
            let changed = known.status.state != state;
            if changed {
                log::debug!("docker at {}: {error}", daemon.socket.display());
                known.status.state = state;
            }
            changed
        });
        sleep(error.retry()).await;
    }
}

/// Uses one connection until it fails or Docker stops.
async fn session(
    socket: &Path,
    limit: Duration,
    sender: &watch::Sender<State>,
) -> Result<Infallible, Error> {
    let client = within(limit, Client::connect(socket.into())).await?;
    let due = Notify::new();
    let hear = async {
        let mut events = within(limit, client.events()).await?;
        let mut heard = 0_usize;
        while events.piece().await?.is_some() {
            due.notify_one();
            heard = heard.wrapping_add(1);
            if heard.is_multiple_of(BURST) {
                sleep(BREATH).await;
            }
        }
        Err(Error::Ended)
    };
    let look = async {
        let mut pause = SETTLE;
        loop {
            let asked = Instant::now();
            let docker = within(limit, client.list()).await?;
            sender.send_replace(State {
                docker: Arc::new(docker),
                status: success(),
            });
            let listed = Instant::now();
            if timeout(RELIST, due.notified()).await.is_ok() {
                let quiet = listed.elapsed();
                pause = next_pause(pause, quiet);
                let rest = (REST * (listed - asked)).saturating_sub(quiet);
                sleep(pause.max(rest)).await;
            }
        }
    };
    // Events are polled first. An event that arrives during a list causes the next list.
    tokio::select! {
        biased;
        end = hear => end,
        end = look => end,
    }
}

/// Computes how long to wait after an event, from the `last` pause and the time without events since the last list. The
/// pause grows while events keep coming, so that a flood costs little, and is short again after some quiet seconds.
fn next_pause(last: Duration, quiet: Duration) -> Duration {
    (2 * last)
        .saturating_sub(quiet / 4)
        .clamp(SETTLE, SETTLE_MOST)
}

async fn within<T>(
    limit: Duration,
    ask: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    timeout(limit, ask).await.unwrap_or(Err(Error::Timeout))
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

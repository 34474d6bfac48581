//! Docker's names, read over its socket. They only dress up what netlink shows: whatever goes wrong
//! here is a state to report, never an error that ends anything.
//!
//! Events are hints, lists are truth: an event only says that it is time for a new list, so a lost one
//! costs a moment.
//!
//! Whoever listens at the socket may say anything, at any length and speed. An answer costs at most 64 MiB
//! while it is read and [`LIMIT`], and a flood of events a list now and then.

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
/// Where dockerd leaves its number for as long as it runs.
const PID_FILES: [&str; 2] = ["/var/run/docker.pid", "/run/docker.pid"];

/// For a daemon that ended our connection to end itself: it stops containers first, 15 s by default.
const SHUTDOWN: Duration = Duration::from_secs(20);
/// Docker tells of one `docker run` in several events; one list is enough for them.
const SETTLE: Duration = Duration::from_millis(20);
/// What that grows to while events come one after the other.
const SETTLE_MOST: Duration = Duration::from_secs(1);
/// Lists may take a fifth of the time.
const REST: u32 = 4;
/// After this many pieces of events in a row the rest has to wait for a moment. They all say the same.
const BURST: usize = 100;
const BREATH: Duration = Duration::from_millis(50);
/// Without an event: so that a daemon that hangs is noticed, and `last_success` means something.
const RELIST: Duration = Duration::from_secs(30);
/// How long one list may take, and how long an answer to any request.
const LIMIT: Duration = Duration::from_secs(10);

/// Whose names the user wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DockerSocket {
    /// Those of the daemon that `docker` itself would ask, if it is on this host.
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
                // A misspelt word is no path.
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

/// Watches Docker from now on. The receiver's end never closes before the task is dropped, also where
/// there is nothing to watch.
pub fn watch(wish: DockerSocket) -> (Task, watch::Receiver<State>) {
    watch_daemon(wish.daemon(), LIMIT)
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

/// Asks once; without an answer in time there are no names.
pub async fn list_once(wish: &DockerSocket, limit: Duration) -> (Docker, SourceStatus) {
    let Some(daemon) = wish.daemon() else {
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
                let Err(error) = session(&daemon.socket, limit, sender).await;
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
        sleep(error.retry()).await;
    }
}

/// One connection's life: it ends with an error, be it that Docker was stopped.
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
    // Events are asked for first. One that comes during a list leaves its mark for the next.
    tokio::select! {
        biased;
        end = hear => end,
        end = look => end,
    }
}

/// How long to wait after an event, if it was `last` before the list before it, and quiet since: long
/// where one event follows the other, so that a flood costs little, and short after some seconds of calm.
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

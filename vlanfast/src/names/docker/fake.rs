//! A fake Docker daemon for tests. It implements as much of HTTP/1.1 as our client needs, on a socket of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    sync::broadcast,
    task::{JoinHandle, JoinSet},
};

/// The answers of the fake daemon and the requests to it. They outlive the daemon.
#[derive(Clone, Default)]
pub struct FakeDocker(Arc<Mutex<Script>>);

#[derive(Default)]
pub struct Script {
    pub networks: Value,
    pub containers: Value,
    /// The daemon sends this text and no JSON.
    pub garbage: Option<&'static str>,
    /// The daemon accepts connections and never answers.
    pub hangs: bool,
    /// The daemon sends events as fast as it can.
    pub floods: bool,
    /// The requested paths with their queries, without API versions.
    pub asked: Vec<String>,
}

impl FakeDocker {
    pub fn new(networks: Value, containers: Value) -> Self {
        let fake = Self::default();
        fake.change(|script| {
            script.networks = networks;
            script.containers = containers;
        });
        fake
    }

    pub fn change<T>(&self, change: impl FnOnce(&mut Script) -> T) -> T {
        change(&mut self.0.lock().unwrap())
    }

    fn answer(&self, path: &str) -> Option<String> {
        self.change(|script| {
            script.asked.push(path.to_owned());
            let answer = match path.split('?').next() {
                _ if script.hangs => return None,
                Some("/version") => json!({"ApiVersion": "1.41", "MinAPIVersion": "1.12"}),
                Some("/networks") => script.networks.clone(),
                Some("/containers/json") => script.containers.clone(),
                _ => panic!("unexpected request for {path}"),
            };
            Some(script.garbage.map_or(answer.to_string(), str::to_owned))
        })
    }
}

/// A running daemon. Dropping it has the effect of `kill -9`: its socket is left behind.
pub struct Daemon {
    events: broadcast::Sender<String>,
    server: JoinHandle<()>,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Daemon {
    pub fn start(socket: &Path, fake: &FakeDocker) -> Self {
        // dockerd also removes the socket of its predecessor.
        fs::remove_file(socket).ok();
        let listener = UnixListener::bind(socket).unwrap();
        let (events, _) = broadcast::channel(16);
        let (told, fake) = (events.clone(), fake.clone());
        let server = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, fake.clone(), told.subscribe()));
            }
        });
        Self { events, server }
    }

    /// Sends an event to all clients that listen.
    pub fn send_event(&self, kind: &str, action: &str) {
        let event = json!({"Type": kind, "Action": action, "scope": "local", "time": 1});
        self.events.send(event.to_string()).ok();
    }
}

/// Serves one request, because our client keeps no connection open.
async fn serve(mut stream: UnixStream, fake: FakeDocker, events: broadcast::Receiver<String>) {
    let Some(path) = request(&mut stream).await else {
        return;
    };
    if path.starts_with("/events") && !fake.change(|script| script.hangs) {
        fake.change(|script| script.asked.push(path));
        return match fake.change(|script| script.floods) {
            true => flood(stream).await,
            false => follow(stream, events).await,
        };
    }
    match fake.answer(&path) {
        Some(body) => {
            let length = body.len();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
            stream.write_all((head + &body).as_bytes()).await.ok();
        }
        None => std::future::pending().await,
    }
}

/// Reads a request and returns its path without the API version.
async fn request(stream: &mut UnixStream) -> Option<String> {
    let mut head = String::new();
    while !head.contains("\r\n\r\n") {
        let mut bytes = [0; 4096];
        let length = stream.read(&mut bytes).await.ok().filter(|&n| n > 0)?;
        head.push_str(str::from_utf8(&bytes[..length]).unwrap());
    }
    let path = head.split(' ').nth(1)?;
    let versioned = path.strip_prefix("/v1.").and_then(|rest| rest.find('/'));
    Some(
        versioned
            .map_or(path, |slash| &path["/v1.".len() + slash..])
            .to_owned(),
    )
}

async fn follow(mut stream: UnixStream, mut events: broadcast::Receiver<String>) {
    let mut text = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned();
    while stream.write_all(text.as_bytes()).await.is_ok() {
        let Ok(event) = events.recv().await else {
            return;
        };
        text = format!("{:x}\r\n{event}\n\r\n", event.len() + 1);
    }
}

async fn flood(mut stream: UnixStream) {
    let mut text = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    while stream.write_all(&text).await.is_ok() {
        text = b"3\r\n{}\n\r\n".repeat(100);
    }
}

/// Returns a path for a socket in a temporary directory.
pub fn socket() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("docker.sock");
    (dir, socket)
}

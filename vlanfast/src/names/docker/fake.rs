//! A daemon that says what a test wants: as much HTTP/1.1 as our client needs, on a socket of its own.

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

/// What the daemon is asked and what it answers; it outlives the daemon.
#[derive(Clone, Default)]
pub struct World(Arc<Mutex<Facts>>);

#[derive(Default)]
pub struct Facts {
    pub networks: Value,
    pub containers: Value,
    /// Instead of any JSON.
    pub garbage: Option<&'static str>,
    /// Takes connections and says nothing.
    pub hangs: bool,
    /// Tells of an event as often as it can.
    pub floods: bool,
    /// Paths with their queries, versions stripped.
    pub asked: Vec<String>,
}

impl World {
    pub fn new(networks: Value, containers: Value) -> Self {
        let world = Self::default();
        world.change(|facts| {
            facts.networks = networks;
            facts.containers = containers;
        });
        world
    }

    pub fn change<T>(&self, change: impl FnOnce(&mut Facts) -> T) -> T {
        change(&mut self.0.lock().unwrap())
    }

    fn answer(&self, path: &str) -> Option<String> {
        self.change(|facts| {
            facts.asked.push(path.to_owned());
            let answer = match path.split('?').next() {
                _ if facts.hangs => return None,
                Some("/version") => json!({"ApiVersion": "1.41", "MinAPIVersion": "1.12"}),
                Some("/networks") => facts.networks.clone(),
                Some("/containers/json") => facts.containers.clone(),
                _ => panic!("nobody should ask for {path}"),
            };
            Some(facts.garbage.map_or(answer.to_string(), str::to_owned))
        })
    }
}

/// A running daemon; dropped, it is as dead as after `kill -9`, its socket left behind.
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
    pub fn start(socket: &Path, world: &World) -> Self {
        // As dockerd does with what its predecessor left.
        fs::remove_file(socket).ok();
        let listener = UnixListener::bind(socket).unwrap();
        let (events, _) = broadcast::channel(16);
        let (told, world) = (events.clone(), world.clone());
        let server = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, world.clone(), told.subscribe()));
            }
        });
        Self { events, server }
    }

    /// Tells those who listen.
    pub fn tell(&self, kind: &str, action: &str) {
        let event = json!({"Type": kind, "Action": action, "scope": "local", "time": 1});
        self.events.send(event.to_string()).ok();
    }
}

/// One connection: one request, as our client keeps none open.
async fn serve(mut stream: UnixStream, world: World, events: broadcast::Receiver<String>) {
    let Some(path) = request(&mut stream).await else {
        return;
    };
    if path.starts_with("/events") && !world.change(|facts| facts.hangs) {
        world.change(|facts| facts.asked.push(path));
        return match world.change(|facts| facts.floods) {
            true => flood(stream).await,
            false => follow(stream, events).await,
        };
    }
    match world.answer(&path) {
        Some(body) => {
            let length = body.len();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
            stream.write_all((head + &body).as_bytes()).await.ok();
        }
        None => std::future::pending().await,
    }
}

/// The path that is asked for; a client may put a version before it.
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

/// A place for a socket.
pub fn socket() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("docker.sock");
    (dir, socket)
}

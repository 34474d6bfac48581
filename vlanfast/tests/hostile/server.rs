//! A server that sends what a test wants. It uses threads and plain bytes, so that nothing enforces valid HTTP.

use std::{
    io::{Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::answers::{Hostile, Step, sane};

/// No client may wait longer.
const GIVEN_UP: Duration = Duration::from_secs(300);

pub struct Server {
    pub socket: PathBuf,
    hostile: Arc<Mutex<Option<Arc<Hostile>>>>,
    _dir: TempDir,
}

impl Server {
    pub fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("docker.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let hostile = Arc::new(Mutex::new(None));
        let known = hostile.clone();
        // The thread ends with the process.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let hostile: Option<Arc<Hostile>> = known.lock().unwrap().clone();
                thread::spawn(move || serve(stream.unwrap(), hostile.as_deref()));
            }
        });
        Self {
            socket,
            hostile,
            _dir: dir,
        }
    }

    /// Sets the answer for all requests from now on.
    pub fn answer(&self, hostile: Option<Hostile>) {
        *self.hostile.lock().unwrap() = hostile.map(Arc::new);
    }
}

fn serve(mut stream: UnixStream, hostile: Option<&Hostile>) {
    let mut head = vec![];
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return,
        }
    }
    let head = String::from_utf8(head).unwrap();
    let path = head.split([' ', '?']).nth(1).unwrap();
    let path = path.strip_prefix("/v1.41").unwrap_or(path);
    let steps = match hostile.filter(|hostile| hostile.path == path) {
        Some(hostile) => &hostile.steps,
        None => &sane(path),
    };
    // An error means that the client has closed the connection.
    for step in steps {
        if play(&mut stream, step).is_err() {
            return;
        }
    }
}

fn play(stream: &mut UnixStream, step: &Step) -> std::io::Result<()> {
    match step {
        Step::Say(bytes) => stream.write_all(bytes),
        Step::Repeat(bytes, times) => (0..*times).try_for_each(|_| stream.write_all(bytes)),
        Step::Drip(bytes, pause) => bytes.iter().try_for_each(|&byte| {
            thread::sleep(*pause);
            stream.write_all(&[byte])
        }),
        Step::Hang => {
            stream.set_read_timeout(Some(GIVEN_UP))?;
            let start = Instant::now();
            let ended = stream.read(&mut [0]);
            assert!(start.elapsed() < GIVEN_UP, "a client that waits for ever");
            ended.map(drop)
        }
    }
}

//! Output from a thread of its own, so that an attached process never waits for its reader.

use std::{
    io::{self, Write},
    sync::mpsc::{self, Receiver, Sender, SyncSender},
    thread,
    time::Duration,
};

use super::{line, lines};

/// How many messages may wait. If the queue is full, new ones are dropped.
const ROOM: usize = 1024;
/// How long the process waits at its end for messages to be written.
const FINISH_TIME: Duration = Duration::from_millis(200);

/// A handle on the thread that writes. A stopped terminal, or a pipe that nobody reads, does not hold the heartbeat up.
#[derive(Clone, Debug)]
pub struct Background(SyncSender<Words>);

#[derive(Debug)]
enum Words {
    Output(String),
    Log(Vec<u8>),
    Last(Sender<()>),
}

impl Background {
    /// Starts the thread.
    pub fn start() -> io::Result<Self> {
        let (sender, receiver) = mpsc::sync_channel(ROOM);
        let thread = thread::Builder::new().name("output".into());
        thread.spawn(move || write_all(&receiver))?;
        Ok(Self(sender))
    }

    /// Prints lines on stdout.
    pub fn text(&self, text: &str) {
        let _ = self.0.try_send(Words::Output(lines(text)));
    }

    /// Prints a message on one line of stderr.
    pub fn note(&self, text: &str) {
        let _ = self
            .0
            .try_send(Words::Log((line(text) + "\n").into_bytes()));
    }

    /// Waits until everything is written, but no longer than a moment.
    pub fn finish(&self) {
        let (done, written) = mpsc::channel();
        if self.0.try_send(Words::Last(done)).is_ok() {
            let _ = written.recv_timeout(FINISH_TIME);
        }
    }
}

/// The log writes to stderr, one record per call.
impl Write for Background {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.0.try_send(Words::Log(bytes.to_vec()));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes all messages. A closed pipe (`vlanfast attach eth0 | head`) is ignored.
fn write_all(receiver: &Receiver<Words>) {
    for words in receiver {
        let _ = match words {
            Words::Output(text) => {
                let mut out = io::stdout().lock();
                out.write_all(text.as_bytes()).and_then(|()| out.flush())
            }
            Words::Log(bytes) => io::stderr().write_all(&bytes),
            Words::Last(done) => {
                let _ = done.send(());
                Ok(())
            }
        };
    }
}

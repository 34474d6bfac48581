//! Words of a process that has other things to do than to wait for its reader.

use std::{
    io::{self, Write},
    sync::mpsc::{self, Receiver, Sender, SyncSender},
    thread,
    time::Duration,
};

use super::{line, lines};

/// How many words may wait. What finds no room is lost: nobody reads it anyway.
const ROOM: usize = 1024;
/// How long the last words may take.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// Writes from a thread of its own, so that a terminal that was stopped, or a pipe that nobody reads, keeps the
/// heartbeat from nothing.
#[derive(Clone, Debug)]
pub struct Background(SyncSender<Words>);

#[derive(Debug)]
enum Words {
    Output(String),
    Log(Vec<u8>),
    Last(Sender<()>),
}

impl Background {
    pub fn start() -> io::Result<Self> {
        let (sender, receiver) = mpsc::sync_channel(ROOM);
        let thread = thread::Builder::new().name("output".into());
        thread.spawn(move || write_all(&receiver))?;
        Ok(Self(sender))
    }

    /// Lines for stdout.
    pub fn text(&self, text: &str) {
        let _ = self.0.try_send(Words::Output(lines(text)));
    }

    /// Something beside the output, on one line of stderr.
    pub fn note(&self, text: &str) {
        let _ = self
            .0
            .try_send(Words::Log((line(text) + "\n").into_bytes()));
    }

    /// Waits until everything was written, but not for long.
    pub fn finish(&self) {
        let (done, written) = mpsc::channel();
        if self.0.try_send(Words::Last(done)).is_ok() {
            let _ = written.recv_timeout(LAST_WORDS);
        }
    }
}

/// Of a log, for stderr: a whole record at a time, as its writer hands them over.
impl Write for Background {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.0.try_send(Words::Log(bytes.to_vec()));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// That nobody reads it any more (`vlanfast attach eth0 | head`) ends nothing.
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

//! One TCP connection that is never idle. A test that disturbs the path between its ends learns whether the
//! connection survived, and how long the longest silence was.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::net::namespace::{Netns, in_netns};

/// This is longer than any retransmission here; a connection that is silent for this long is dead.
const PATIENCE: Duration = Duration::from_secs(30);

pub struct EchoConnection {
    talking: Arc<AtomicBool>,
    caller: JoinHandle<Result<EchoReport>>,
}

/// The result of the connection.
#[derive(Clone, Copy, Debug)]
pub struct EchoReport {
    pub answers: u64,
    pub longest_silence: Duration,
}

impl EchoConnection {
    /// Connects from one namespace to an address in another, where every byte is echoed.
    pub fn start(from: &Netns, to: &Netns, address: &'static str) -> Result<Self> {
        let listener = in_netns(&to.path(), move || Ok(TcpListener::bind((address, 0))?))?;
        let there = listener.local_addr()?;
        thread::spawn(move || -> Result<()> {
            let mut stream = listener.accept()?.0;
            let mut word = [0; 8];
            while stream.read_exact(&mut word).is_ok() {
                stream.write_all(&word)?;
            }
            Ok(())
        });
        let stream = in_netns(&from.path(), move || Ok(TcpStream::connect(there)?))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let talking = Arc::new(AtomicBool::new(true));
        let caller = thread::spawn({
            let talking = Arc::clone(&talking);
            move || call(stream, &talking)
        });
        Ok(Self { talking, caller })
    }

    /// Closes the connection in order; returns an error if it had ended before, or if an answer was wrong or missing.
    pub fn stop(self) -> Result<EchoReport> {
        self.talking.store(false, Ordering::Relaxed);
        self.caller
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

fn call(mut stream: TcpStream, talking: &AtomicBool) -> Result<EchoReport> {
    let mut heard = EchoReport {
        answers: 0,
        longest_silence: Duration::ZERO,
    };
    while talking.load(Ordering::Relaxed) {
        let asked = Instant::now();
        stream
            .write_all(&heard.answers.to_be_bytes())
            .context("the connection broke")?;
        let mut answer = [0; 8];
        stream
            .read_exact(&mut answer)
            .context("the connection broke")?;
        ensure!(
            u64::from_be_bytes(answer) == heard.answers,
            "an answer to another question"
        );
        heard.answers += 1;
        heard.longest_silence = heard.longest_silence.max(asked.elapsed());
        thread::sleep(Duration::from_millis(5));
    }
    Ok(heard)
}

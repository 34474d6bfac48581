//! The log of an attached process: its own warnings always, and the messages of the BPF programs with `-v`.

use std::io::Write;

use anyhow::Context;
use aya::Ebpf;
use aya_log::EbpfLogger;
use env_logger::Target;
use log::LevelFilter;
use tokio::io::unix::AsyncFd;

use crate::{output, output::Background};

/// The messages of the BPF programs, if `-v` asked for them.
pub struct Messages(Option<AsyncFd<EbpfLogger<&'static dyn log::Log>>>);

/// The log level of the programs in aya-log's numbers. At 0 the verifier removes all logging code.
pub const fn level(verbose: u8) -> u8 {
    match verbose {
        0 => 0,
        1 => aya_log::Level::Debug as u8,
        _ => aya_log::Level::Trace as u8,
    }
}

impl Messages {
    /// Starts our own log, and opens that of the programs.
    pub fn open(ebpf: &mut Ebpf, verbose: u8, to: &Background) -> anyhow::Result<Self> {
        let level = match verbose {
            0 => LevelFilter::Warn,
            1 => LevelFilter::Debug,
            _ => LevelFilter::Trace,
        };
        // Only messages of vlanfast and of its programs, whose targets start with this name. Libraries log a lot at
        // these levels.
        env_logger::Builder::new()
            .filter_module("vlanfast", level)
            .format(|buffer, record| {
                // Messages quote names and texts from Docker and the kernel, which may contain control characters.
                let text = output::line(&record.args().to_string());
                writeln!(buffer, "[{:<5} {}] {text}", record.level(), record.target())
            })
            .target(Target::Pipe(Box::new(to.clone())))
            .init();
        if verbose == 0 {
            return Ok(Self(None));
        }
        let logger =
            EbpfLogger::init(ebpf).context("failed to open the log of the BPF programs")?;
        // SAFETY: the logger owns its descriptor and keeps it open until it is dropped.
        let logger = unsafe { AsyncFd::register(logger) };
        Ok(Self(Some(logger.context(
            "failed to wait for messages of the BPF programs",
        )?)))
    }

    /// Writes the messages as they arrive.
    pub async fn show(&mut self) -> anyhow::Result<std::convert::Infallible> {
        let Some(logger) = &mut self.0 else {
            return std::future::pending().await;
        };
        loop {
            let mut ready = logger
                .readable_mut()
                .await
                .context("failed to wait for messages of the BPF programs")?;
            ready.get_inner_mut().flush();
            ready.clear_ready();
        }
    }
}

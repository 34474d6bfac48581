//! What is said while attached: our own warnings always, the programs' messages with `-v`.

use std::io::Write;

use anyhow::Context;
use aya::Ebpf;
use aya_log::EbpfLogger;
use env_logger::Target;
use log::LevelFilter;
use tokio::io::unix::AsyncFd;

use crate::{output, output::Background};

/// The programs' messages, if they are wanted.
pub struct Messages(Option<AsyncFd<EbpfLogger<&'static dyn log::Log>>>);

/// aya-log's level in the programs: 0 keeps the verifier from leaving any of it in.
pub const fn level(verbose: u8) -> u8 {
    match verbose {
        0 => 0,
        1 => aya_log::Level::Debug as u8,
        _ => aya_log::Level::Trace as u8,
    }
}

impl Messages {
    pub fn open(ebpf: &mut Ebpf, verbose: u8, to: &Background) -> anyhow::Result<Self> {
        let level = match verbose {
            0 => LevelFilter::Warn,
            1 => LevelFilter::Debug,
            _ => LevelFilter::Trace,
        };
        // Ours alone, and our programs', whose names start with ours: the libraries have their own to
        // say at these levels.
        env_logger::Builder::new()
            .filter_module("vlanfast", level)
            .format(|buffer, record| {
                // They quote names, and Docker's and the kernel's words.
                let text = output::line(&record.args().to_string());
                writeln!(buffer, "[{:<5} {}] {text}", record.level(), record.target())
            })
            .target(Target::Pipe(Box::new(to.clone())))
            .init();
        if verbose == 0 {
            return Ok(Self(None));
        }
        let logger = EbpfLogger::init(ebpf).context("failed to open the programs' messages")?;
        // SAFETY: the logger owns its descriptor and keeps it open until it is dropped.
        let logger = unsafe { AsyncFd::register(logger) };
        Ok(Self(Some(
            logger.context("failed to wait for the programs' messages")?,
        )))
    }

    /// Shows them as they come.
    pub async fn show(&mut self) -> anyhow::Result<std::convert::Infallible> {
        let Some(logger) = &mut self.0 else {
            return std::future::pending().await;
        };
        loop {
            let mut ready = logger
                .readable_mut()
                .await
                .context("failed to wait for messages")?;
            ready.get_inner_mut().flush();
            ready.clear_ready();
        }
    }
}

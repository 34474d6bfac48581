//! `vlanfast attach`: check, attach, stay, detach.

use anyhow::Context;
use aya::Ebpf;
use aya_log::EbpfLogger;
use log::LevelFilter;
use tokio::{
    io::unix::AsyncFd,
    signal::unix::{Signal, SignalKind, signal},
};

use super::status;
use crate::{
    cli::AttachArgs,
    datapath::{
        check_kernel, choose,
        device::Trunk,
        hooks, load,
        netlink::Netlink,
        pins::{Holder, Lock, Pins},
    },
    error::Error,
};

pub async fn run(args: &AttachArgs) -> anyhow::Result<()> {
    // From here on a signal ends us in order, at whatever point it comes.
    let mut stop = Stop::listen()?;
    check_kernel()?;
    let netlink = Netlink::connect()?;
    let pins = Pins::of(&args.trunk);
    let (_lock, trunk, choice) = prepare(&netlink, &pins, args).await?;

    let mut ebpf = load::load(log_level(args.verbose))?;
    let logger = match args.verbose {
        0 => None,
        _ => Some(messages(&mut ebpf, args.verbose)?),
    };
    let attached = hooks::attach(&netlink, &trunk, choice, &mut ebpf, &pins).await;
    // What is attached is pinned: our own handles would only keep it alive behind a detach's back.
    drop(ebpf);
    let result = match attached {
        Ok(notes) => stay(&netlink, &pins, &notes, logger, &mut stop).await,
        Err(error) => Err(error),
    };
    result.and(hooks::remove(&netlink, &pins).await)
}

/// Everything that can be refused without having changed anything.
async fn prepare(
    netlink: &Netlink,
    pins: &Pins,
    args: &AttachArgs,
) -> anyhow::Result<(Lock, Trunk, choose::Choice)> {
    let mut trunk = Trunk::find(netlink, &args.trunk).await?;
    if pins.exist() {
        let _lock = pins.lock()?.map_err(|holder| taken(pins, holder))?;
        // Its process was killed: what it left goes first, or it would pass for someone else's.
        hooks::remove(netlink, pins).await?;
        trunk = Trunk::find(netlink, &args.trunk).await?;
    }
    let choice = choose::choose(&trunk, args.ingress)?;
    let lock = pins.create()?.map_err(|holder| taken(pins, holder))?;
    Ok((lock, trunk, choice))
}

fn taken(pins: &Pins, holder: Holder) -> Error {
    Error::AlreadyAttached {
        trunk: pins.trunk.clone(),
        pid: holder
            .pid
            .map_or_else(|| "of another namespace".into(), |pid| pid.to_string()),
    }
}

/// Shows what was done, then messages until a signal comes.
async fn stay(
    netlink: &Netlink,
    pins: &Pins,
    notes: &[String],
    logger: Option<AsyncFd<EbpfLogger<&'static dyn log::Log>>>,
    stop: &mut Stop,
) -> anyhow::Result<()> {
    for note in notes {
        eprintln!("note: {note}");
    }
    status::print(netlink, pins).await?;
    println!("Ctrl-C detaches.");
    match logger {
        None => stop.wait().await,
        Some(mut logger) => tokio::select! {
            () = stop.wait() => {}
            result = show(&mut logger) => result?,
        },
    }
    println!("{}: detaching", pins.trunk);
    Ok(())
}

/// aya-log's level in the programs: 0 keeps the verifier from leaving any of it in.
const fn log_level(verbose: u8) -> u8 {
    match verbose {
        0 => 0,
        1 => aya_log::Level::Debug as u8,
        _ => aya_log::Level::Trace as u8,
    }
}

fn messages(
    ebpf: &mut Ebpf,
    verbose: u8,
) -> anyhow::Result<AsyncFd<EbpfLogger<&'static dyn log::Log>>> {
    let level = if verbose == 1 {
        LevelFilter::Debug
    } else {
        LevelFilter::Trace
    };
    env_logger::Builder::new()
        // Ours alone: the libraries have their own to say at these levels.
        .filter_module("vlanfast_ebpf", level)
        .filter_module("vlanfast", level)
        .init();
    let logger = EbpfLogger::init(ebpf).context("failed to open the programs' messages")?;
    // SAFETY: the logger owns its descriptor and keeps it open until it is dropped.
    unsafe { AsyncFd::register(logger) }.context("failed to wait for the programs' messages")
}

async fn show(logger: &mut AsyncFd<EbpfLogger<&'static dyn log::Log>>) -> anyhow::Result<()> {
    loop {
        let mut ready = logger
            .readable_mut()
            .await
            .context("failed to wait for messages")?;
        ready.get_inner_mut().flush();
        ready.clear_ready();
    }
}

/// The signals that end an attachment.
struct Stop([Signal; 3]);

impl Stop {
    fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("failed to listen for signals");
        Ok(Self([
            listen(SignalKind::interrupt())?,
            listen(SignalKind::terminate())?,
            listen(SignalKind::hangup())?,
        ]))
    }

    async fn wait(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

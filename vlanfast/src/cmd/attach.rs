//! `vlanfast attach`: check, attach or take over, stay, detach or not.

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
    cli::{AttachArgs, OnExit},
    datapath::{
        check_kernel, choose,
        device::Trunk,
        hooks, load,
        netlink::Netlink,
        pins::{Holder, Lock, Pins},
        tables,
    },
    error::Error,
    state::plan::Capacity,
};

pub async fn run(args: &AttachArgs) -> anyhow::Result<()> {
    // From here on a signal ends us in order, at whatever point it comes.
    let mut stop = Stop::listen()?;
    check_kernel()?;
    let netlink = Netlink::connect()?;
    let prepared = prepare(&netlink, args).await?;
    let result = work(&netlink, &prepared, args, &mut stop).await;
    if result.is_ok() && args.on_exit == OnExit::Keep {
        return Ok(());
    }
    result.and(hooks::remove(&netlink, &prepared.pins).await)
}

/// All that can leave something to remove.
async fn work(
    netlink: &Netlink,
    prepared: &Prepared,
    args: &AttachArgs,
    stop: &mut Stop,
) -> anyhow::Result<()> {
    let Prepared {
        pins,
        trunk,
        choice,
        ..
    } = prepared;
    let capacity = Capacity {
        endpoints: args.max_endpoints,
        neighbors: 4 * args.max_endpoints,
    };
    let (mut ebpf, mut maps) = load::adopt(pins, capacity, log_level(args.verbose))?;
    let logger = match args.verbose {
        0 => None,
        _ => Some(messages(&mut ebpf, args.verbose)?),
    };
    let notes = hooks::attach(netlink, trunk, *choice, &mut ebpf, &mut maps, pins).await?;
    // What is attached is pinned: our own handles would only keep it alive behind a detach's back.
    drop((ebpf, maps));
    stay(netlink, pins, &notes, logger, stop, args.on_exit).await
}

/// What is needed to attach.
struct Prepared {
    pins: Pins,
    trunk: Trunk,
    choice: choose::Choice,
    _lock: Lock,
}

/// Everything that can be refused without having changed anything.
async fn prepare(netlink: &Netlink, args: &AttachArgs) -> anyhow::Result<Prepared> {
    let mut trunk = Trunk::find(netlink, &args.trunk).await?;
    let mut pins = hooks::pins_of(netlink, &args.trunk).await?;
    let mut lock = None;
    if pins.exist() {
        // Its process was killed, or told to keep it: it is ours now.
        lock = Some(pins.lock()?.map_err(|holder| taken(&pins, holder))?);
        if tables::settings(&pins).is_ok_and(|settings| settings.ifindex != trunk.ifindex) {
            // What had this name is another device by now.
            hooks::remove(netlink, &pins).await?;
            (lock, trunk) = (None, Trunk::find(netlink, &args.trunk).await?);
        }
    }
    let choice = choose::choose(&hooks::without_ours(&trunk, &pins)?, args.ingress)?;
    let lock = match lock {
        Some(lock) => lock,
        None => pins.create()?.map_err(|holder| taken(&pins, holder))?,
    };
    if pins.trunk != trunk.name {
        pins.rename(&trunk.name)?;
    }
    Ok(Prepared {
        pins,
        trunk,
        choice,
        _lock: lock,
    })
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
    on_exit: OnExit,
) -> anyhow::Result<()> {
    for note in notes {
        eprintln!("note: {note}");
    }
    status::print(netlink, pins).await?;
    let trunk = &pins.trunk;
    let end = match on_exit {
        OnExit::Detach => "detaches".into(),
        OnExit::Keep => format!(
            "ends this process alone: `vlanfast attach {trunk}` takes over what stays attached, \
             `vlanfast detach {trunk}` takes it off"
        ),
    };
    println!("Ctrl-C {end}.");
    match logger {
        None => stop.wait().await,
        Some(mut logger) => tokio::select! {
            () = stop.wait() => {}
            result = show(&mut logger) => result?,
        },
    }
    match on_exit {
        OnExit::Detach => println!("{trunk}: detaching"),
        OnExit::Keep => println!("{trunk}: stays attached; `vlanfast detach {trunk}` takes it off"),
    }
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

//! `vlanfast detach`: also when nobody is left who attached.

use std::time::Duration;

use anyhow::Context;
use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    cli::DetachArgs,
    datapath::{
        check_kernel, hooks,
        netlink::Netlink,
        pins::{Holder, Pins},
    },
    error::Error,
};

/// How long an attached process may take to end.
const PATIENCE: Duration = Duration::from_secs(10);

pub async fn run(args: &DetachArgs) -> anyhow::Result<()> {
    check_kernel()?;
    let netlink = Netlink::connect()?;
    let Some(pins) = hooks::find(&netlink, &args.trunk).await? else {
        if netlink.link(&args.trunk).await?.is_none() {
            return Err(Error::NoSuchDevice {
                trunk: args.trunk.clone(),
            }
            .into());
        }
        println!("{}: nothing attached, nothing to do", args.trunk);
        return Ok(());
    };
    if let Some(holder) = pins.holder() {
        end(holder, &pins)?;
        pins.wait_until_free(PATIENCE).await?;
    }
    // The process that we ended may have cleared up after itself; one that was told to keep things as
    // they are has not, nor has a killed one.
    if pins.exist() {
        let _lock = pins
            .lock()?
            .ok()
            .context("someone attaches at this moment: try again")?;
        hooks::remove(&netlink, &pins).await?;
    }
    println!("{}: detached", args.trunk);
    Ok(())
}

/// Asks the attached process to end.
fn end(holder: Holder, pins: &Pins) -> anyhow::Result<()> {
    let pid = holder.pid.with_context(|| {
        format!(
            "the process attached to {} is in another PID namespace: stop it there",
            pins.trunk
        )
    })?;
    // It may have ended since, and its number be another's.
    if pins.holder() != Some(holder) {
        return Ok(());
    }
    match kill(Pid::from_raw(pid), Signal::SIGTERM) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("failed to stop process {pid}")),
    }
}

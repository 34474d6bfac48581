//! `vlanfast detach`: takes vlanfast off a trunk, whether a process is still attached or not.

use std::time::Duration;

use anyhow::{Context, bail};

use crate::{
    cli::DetachArgs,
    cmd::trunks::ensure_not_pinned_elsewhere,
    error::Error,
    hooks,
    hooks::{check_requirements, locate},
    netlink::Netlink,
    output,
    pins::Pins,
};

/// How long an attached process may take to end after SIGTERM.
const AFTER_TERM: Duration = Duration::from_secs(3);
/// How long it may take to end after SIGKILL.
const AFTER_KILL: Duration = Duration::from_secs(10);

pub async fn run(args: &DetachArgs) -> anyhow::Result<()> {
    check_requirements()?;
    let netlink = Netlink::connect()?;
    let Some(pins) = locate::find(&netlink, &args.trunk).await? else {
        let Some(device) = locate::device(&netlink, &args.trunk).await? else {
            let trunk = args.trunk.to_string();
            return Err(Error::NoSuchDevice { trunk }.into());
        };
        ensure_not_pinned_elsewhere(&netlink, &device).await?;
        output::text(&format!("{}: not attached, nothing to do\n", device.name))?;
        return Ok(());
    };
    end(&pins).await?;
    // The process may have detached everything before it ended. With --on-exit keep, or after a SIGKILL, it has not.
    if pins.exist() {
        let _lock = pins
            .lock()?
            .ok()
            .context("another process is attaching to the trunk: try again")?;
        hooks::remove(&netlink, &pins).await?;
    }
    output::text(&format!("{}: detached\n", pins.trunk))
}

/// Ends the process that is attached, if there is one: by SIGTERM, or by SIGKILL if it hangs.
async fn end(pins: &Pins) -> anyhow::Result<()> {
    let Some(process) = pins.process()? else {
        return Ok(());
    };
    process.end(false)?;
    if pins.wait_until_free(AFTER_TERM).await {
        return Ok(());
    }
    output::note(&format!("note: {process} does not end and is killed"));
    process.end(true)?;
    if pins.wait_until_free(AFTER_KILL).await {
        return Ok(());
    }
    // Either another process has taken over the trunk, or the killed one is stuck in the kernel.
    pins.process()?;
    bail!(
        "{process} is attached to {} and does not end even after SIGKILL; look in `dmesg` for a driver that hangs",
        pins.trunk
    )
}

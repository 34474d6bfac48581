//! `vlanfast detach`: also when nobody is left who attached.

use std::time::Duration;

use anyhow::{Context, bail};

use crate::{
    cli::DetachArgs,
    error::Error,
    hooks,
    hooks::{check_kernel, trunks},
    netlink::Netlink,
    output,
    pins::Pins,
};

/// How long an attached process may take to end in order, and how long after a SIGKILL.
const IN_ORDER: Duration = Duration::from_secs(3);
const AT_ONCE: Duration = Duration::from_secs(10);

pub async fn run(args: &DetachArgs) -> anyhow::Result<()> {
    check_kernel()?;
    let netlink = Netlink::connect()?;
    let Some(pins) = trunks::find(&netlink, &args.trunk).await? else {
        let Some(device) = trunks::device(&netlink, &args.trunk).await? else {
            let trunk = args.trunk.to_string();
            return Err(Error::NoSuchDevice { trunk }.into());
        };
        super::not_elsewhere(&netlink, &device).await?;
        output::text(&format!(
            "{}: nothing attached, nothing to do\n",
            device.name
        ))?;
        return Ok(());
    };
    end(&pins).await?;
    // The process that we ended may have cleared up after itself; one that was told to keep things as
    // they are has not, nor has a killed one.
    if pins.exist() {
        let _lock = pins
            .lock()?
            .ok()
            .context("someone attaches at this moment: try again")?;
        hooks::remove(&netlink, &pins).await?;
    }
    output::text(&format!("{}: detached\n", pins.trunk))
}

/// Ends the process that is attached, if one is: in order, or else, should it hang, at once.
async fn end(pins: &Pins) -> anyhow::Result<()> {
    let Some(process) = pins.process()? else {
        return Ok(());
    };
    process.end(false)?;
    if pins.wait_until_free(IN_ORDER).await {
        return Ok(());
    }
    output::note(&format!("note: {process} does not end, and is killed"));
    process.end(true)?;
    if pins.wait_until_free(AT_ONCE).await {
        return Ok(());
    }
    // Somebody else has what it left, or the kernel is at work for it.
    pins.process()?;
    bail!(
        "{process} is attached to {} and does not even end when it is killed",
        pins.trunk
    )
}

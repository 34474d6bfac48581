//! The verbs, one file each.

pub mod attach;
pub mod counters;
pub mod detach;
pub mod endpoints;
pub mod flows;
pub mod status;

use crate::{
    datapath::{hooks, netlink::Netlink, pins::Pins},
    error::Error,
};

/// The trunks that a reading verb is about: the one named, or all that are attached.
async fn attached(trunk: Option<&str>) -> anyhow::Result<Vec<Pins>> {
    let Some(name) = trunk else {
        return Pins::all();
    };
    let netlink = Netlink::connect()?;
    if let Some(pins) = hooks::find(&netlink, name).await? {
        return Ok(vec![pins]);
    }
    let trunk = name.to_owned();
    Err(match netlink.link(name).await? {
        Some(_) => Error::NotAttached { trunk },
        None => Error::NoSuchDevice { trunk },
    }
    .into())
}

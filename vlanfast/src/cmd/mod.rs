//! The verbs, one file each.

pub mod attach;
pub mod counters;
pub mod detach;
pub mod endpoints;
pub mod flows;
pub mod status;

use crate::{
    datapath::{pins::Pins, trunks},
    error::Error,
    netlink::Netlink,
    state::name::Name,
};

/// The trunks that a reading verb is about: the one named, or all of our network namespace.
async fn attached(trunk: Option<&Name>) -> anyhow::Result<Vec<Pins>> {
    let netlink = Netlink::connect()?;
    let Some(name) = trunk else {
        return trunks::all(&netlink).await;
    };
    if let Some(pins) = trunks::find(&netlink, name).await? {
        return Ok(vec![pins]);
    }
    Err(match trunks::device(&netlink, name).await? {
        Some(device) => Error::NotAttached {
            trunk: device.name.to_string(),
        },
        None => Error::NoSuchDevice {
            trunk: name.to_string(),
        },
    }
    .into())
}

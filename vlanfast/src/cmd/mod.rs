//! The verbs, one file each.

pub mod attach;
pub mod counters;
pub mod detach;
pub mod endpoints;
pub mod flows;
pub mod status;

use crate::{
    error::Error,
    hooks,
    hooks::{device::Trunk, trunks, trunks::Device},
    netlink::Netlink,
    pins::Pins,
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
        Some(device) => {
            not_elsewhere(&netlink, &device).await?;
            Error::NotAttached {
                trunk: device.name.to_string(),
            }
        }
        None => Error::NoSuchDevice {
            trunk: name.to_string(),
        },
    }
    .into())
}

/// Fails where programs of ours are on a device that has no pins here: somebody attached it elsewhere.
async fn not_elsewhere(netlink: &Netlink, device: &Device) -> anyhow::Result<()> {
    let trunk = match Trunk::of_index(netlink, device.id.ifindex).await {
        Ok(Some(trunk)) => trunk,
        Ok(None) => return Ok(()),
        // Nothing of ours is on a device that can't be a trunk.
        Err(error) if trunks::is_no_trunk(&error) => return Ok(()),
        Err(error) => return Err(error),
    };
    let programs = hooks::unpinned(netlink, &trunk, None).await?;
    match programs.is_empty() {
        true => Ok(()),
        false => Err(Error::PinnedElsewhere {
            trunk: trunk.name.to_string(),
            programs: programs.join("; "),
        }
        .into()),
    }
}

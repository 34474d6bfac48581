//! The trunks that a verb is about.

use crate::{
    error::Error,
    hooks::{device::Trunk, locate, locate::TrunkDevice, pinned_elsewhere},
    netlink::Netlink,
    pins::Pins,
    state::name::Name,
};

/// The attached trunk with a name; without a name, all attached trunks of our network namespace.
pub async fn attached(trunk: Option<&Name>) -> anyhow::Result<Vec<Pins>> {
    let netlink = Netlink::connect()?;
    let Some(name) = trunk else {
        return locate::all(&netlink).await;
    };
    if let Some(pins) = locate::find(&netlink, name).await? {
        return Ok(vec![pins]);
    }
    Err(match locate::device(&netlink, name).await? {
        Some(device) => {
            ensure_not_pinned_elsewhere(&netlink, &device).await?;
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

/// Fails if a device without pins here has programs of ours: they are pinned in another BPF file system.
pub async fn ensure_not_pinned_elsewhere(
    netlink: &Netlink,
    device: &TrunkDevice,
) -> anyhow::Result<()> {
    let trunk = match Trunk::of_index(netlink, device.id.ifindex).await {
        Ok(Some(trunk)) => trunk,
        Ok(None) => return Ok(()),
        // Nothing of ours is attached to a device that can't be a trunk.
        Err(error) if locate::is_no_trunk(&error) => return Ok(()),
        Err(error) => return Err(error),
    };
    let programs = pinned_elsewhere(netlink, &trunk, None).await?;
    match programs.is_empty() {
        true => Ok(()),
        false => Err(Error::PinnedElsewhere {
            trunk: trunk.name.to_string(),
            programs: programs.join("; "),
        }
        .into()),
    }
}

//! What the trunk is, as far as it decides what can be attached to it.

use anyhow::Context;
use aya::programs::loaded_programs;
use rtnetlink::packet_route::link::{
    LinkAttribute, LinkFlags, LinkLayerType, LinkMessage, LinkXdp, XdpAttached,
};

use super::{ethtool, netlink::Netlink};
use crate::{
    error::Error,
    link::{info_kind, lower, vlan},
};

/// A device that can be a trunk.
#[derive(Clone, Debug)]
pub struct Trunk {
    pub name: String,
    pub ifindex: u32,
    /// `IFLA_INFO_KIND` of a software device; `None` for hardware and virtio.
    pub kind: Option<String>,
    /// `rx-vlan-offload`: XDP would not see tags.
    pub strips_tags: bool,
    pub xdp: Option<AttachedXdp>,
}

/// An XDP program on a device, whoever's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachedXdp {
    pub program_id: u32,
    pub generic: bool,
}

impl AttachedXdp {
    /// The program as `bpftool` would name it; by its number alone without CAP_SYS_ADMIN, which it takes
    /// to open a program by that.
    pub fn describe(&self) -> String {
        let id = self.program_id;
        let program = loaded_programs()
            .flatten()
            .find(|program| program.id() == id);
        match program.as_ref().and_then(|program| program.name_as_str()) {
            Some(name) if !name.is_empty() => format!("XDP program '{name}' (id {id})"),
            _ => format!("XDP program {id}"),
        }
    }
}

impl Trunk {
    /// Looks a device up and refuses those that can't be a trunk.
    pub async fn find(netlink: &Netlink, name: &str) -> anyhow::Result<Self> {
        let trunk = || name.to_owned();
        let Some(link) = netlink.link(name).await? else {
            return Err(Error::NoSuchDevice { trunk: trunk() }.into());
        };
        if link.header.flags.contains(LinkFlags::Loopback) {
            let what = "the loopback device";
            return Err(Error::NotATrunk {
                trunk: trunk(),
                what,
            }
            .into());
        }
        if link.header.link_layer_type != LinkLayerType::Ether {
            let what = "not an Ethernet device";
            return Err(Error::NotATrunk {
                trunk: trunk(),
                what,
            }
            .into());
        }
        let kind = info_kind(&link);
        if kind.as_deref() == Some("vlan") {
            return Err(vlan_device(netlink, name, &link).await?);
        }
        Ok(Self {
            name: trunk(),
            ifindex: link.header.index,
            kind,
            strips_tags: ethtool::strips_tags(name)
                .with_context(|| format!("failed to ask {name} for its offloads"))?,
            xdp: attached_xdp(&link),
        })
    }
}

/// The error for a VLAN device in the trunk's place; names the trunk below, however many are stacked.
async fn vlan_device(
    netlink: &Netlink,
    device: &str,
    link: &LinkMessage,
) -> anyhow::Result<anyhow::Error> {
    let trunk = match lower(link) {
        Some(index) => netlink.name(index).await?,
        None => None,
    };
    Ok(match (trunk, vlan(link)) {
        (Some(trunk), Some(vid)) => Error::VlanDevice {
            device: device.to_owned(),
            vlan: vid.get(),
            trunk,
        },
        // Its lower device is in another namespace, or it is an 802.1ad device.
        _ => Error::NotATrunk {
            trunk: device.to_owned(),
            what: "a VLAN device",
        },
    }
    .into())
}

fn attached_xdp(link: &LinkMessage) -> Option<AttachedXdp> {
    let attributes = link
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::Xdp(attributes) => Some(attributes),
            _ => None,
        })?;
    let program_id = attributes.iter().find_map(|attribute| match attribute {
        LinkXdp::ProgId(id) if *id != 0 => Some(*id),
        _ => None,
    })?;
    Some(AttachedXdp {
        program_id,
        generic: attributes.contains(&LinkXdp::Attached(XdpAttached::SocketBuffer)),
    })
}

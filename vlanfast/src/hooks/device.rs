//! What the trunk is, as far as it decides what can be attached to it.

use anyhow::Context;

use crate::{
    error::Error,
    hooks::{bpf, offloads},
    netlink::{Netlink, decode::LinkRecord},
    state::{
        name::Name,
        snapshot::{Ifindex, LinkKind},
    },
};

/// A device that can be a trunk.
#[derive(Clone, Debug)]
pub struct Trunk {
    /// As the kernel has it, whatever name it was found by.
    pub name: Name,
    pub ifindex: u32,
    /// `IFLA_INFO_KIND` of a software device; `None` for hardware and virtio.
    pub kind: Option<String>,
    /// `rx-vlan-offload`: XDP would not see tags.
    pub strips_tags: bool,
    /// By which features it makes one buffer of many packets, which a driver can't do for XDP.
    pub merges: Vec<&'static str>,
    pub xdp: Option<AttachedXdp>,
}

/// An XDP program on a device, whoever's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachedXdp {
    pub program_id: u32,
    pub generic: bool,
}

impl AttachedXdp {
    pub fn describe(&self) -> String {
        bpf::describe("XDP program", self.program_id)
    }
}

impl Trunk {
    /// Looks a device up, by its name or an alternative one, and refuses those that can't be a trunk.
    pub async fn find(netlink: &Netlink, name: &Name) -> anyhow::Result<Self> {
        match netlink.link(name).await? {
            Some(device) => Self::of(netlink, device).await,
            None => Err(Error::NoSuchDevice {
                trunk: name.to_string(),
            }
            .into()),
        }
    }

    /// The same by its index; `None` if the kernel says that there is no such device.
    pub async fn of_index(netlink: &Netlink, ifindex: u32) -> anyhow::Result<Option<Self>> {
        match netlink.link_of(Ifindex(ifindex)).await? {
            Some(device) => Self::of(netlink, device).await.map(Some),
            None => Ok(None),
        }
    }

    async fn of(netlink: &Netlink, device: LinkRecord) -> anyhow::Result<Self> {
        let not = |what| Error::NotATrunk {
            trunk: device.name.to_string(),
            what,
        };
        if device.flags & libc::IFF_LOOPBACK as u32 != 0 {
            return Err(not("the loopback device").into());
        }
        if device.hardware != libc::ARPHRD_ETHER {
            return Err(not("not an Ethernet device").into());
        }
        if device.driver.as_deref() == Some("vlan") {
            return Err(vlan_device(netlink, &device).await?.into());
        }
        let failed = || format!("failed to ask {} for its offloads", device.name);
        Ok(Self {
            strips_tags: offloads::strips_tags(&device.name).with_context(failed)?,
            merges: offloads::merging(&device.name, device.xdp.is_some()).with_context(failed)?,
            ifindex: device.ifindex.0,
            kind: device.driver,
            xdp: device.xdp.map(|xdp| AttachedXdp {
                program_id: xdp.program_id,
                generic: xdp.generic,
            }),
            name: device.name,
        })
    }
}

/// The error for a VLAN device in the trunk's place; names the trunk below, however many are stacked.
async fn vlan_device(netlink: &Netlink, device: &LinkRecord) -> anyhow::Result<Error> {
    let trunk = match device.lower {
        Some((lower, None)) => netlink.link_of(lower).await?,
        _ => None,
    };
    Ok(match (trunk, device.kind) {
        (Some(trunk), LinkKind::Vlan(vid)) => Error::VlanDevice {
            device: device.name.to_string(),
            vlan: vid.get(),
            trunk: trunk.name.to_string(),
        },
        // Its lower device is in another namespace, or it is an 802.1ad device.
        _ => Error::NotATrunk {
            trunk: device.name.to_string(),
            what: "a VLAN device",
        },
    })
}

//! Reads the properties of the trunk that decide what can be attached to it, from netlink and ethtool.

use anyhow::Context;

use crate::{
    error::Error,
    hooks::{bpf_syscall, features, offloads},
    netlink::{Netlink, decode::LinkRecord},
    state::{
        name::Name,
        snapshot::{Ifindex, LinkKind},
    },
};

/// A device that can be a trunk.
#[derive(Clone, Debug)]
pub struct Trunk {
    /// The name that the kernel uses, even if the device was looked up by an alternative name.
    pub name: Name,
    pub ifindex: u32,
    /// `IFLA_INFO_KIND` of a software device; `None` for hardware and virtio.
    pub kind: Option<String>,
    /// Whether `rx-vlan-offload` is on: then XDP does not see VLAN tags.
    pub strips_tags: bool,
    /// The features by which the NIC merges packets (`rx-gro-hw`, `rx-lro`). Drivers can't do that for XDP.
    pub merges: Vec<&'static str>,
    pub xdp: Option<AttachedXdp>,
}

/// An XDP program on a device, ours or another's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachedXdp {
    pub program_id: u32,
    pub generic: bool,
}

impl AttachedXdp {
    /// The program in words.
    pub fn describe(&self) -> String {
        bpf_syscall::describe("XDP program", self.program_id)
    }
}

impl Trunk {
    /// Looks a device up by its name or an alternative name. A device that can't be a trunk is an error.
    pub async fn find(netlink: &Netlink, name: &Name) -> anyhow::Result<Self> {
        match netlink.link(name).await? {
            Some(device) => Self::of(netlink, device).await,
            None => Err(Error::NoSuchDevice {
                trunk: name.to_string(),
            }
            .into()),
        }
    }

    /// Looks a device up by its index; `None` if the kernel says that there is none. A device that can't be a trunk
    /// is an error.
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
        let failed = || format!("failed to read the offloads of {}", device.name);
        Ok(Self {
            strips_tags: offloads::strips_tags(&device.name).with_context(failed)?,
            merges: features::merging(&device.name, device.xdp.is_some()).with_context(failed)?,
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

/// The error for a VLAN device that was named as the trunk. It names the device below, if that can be known.
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
        // The device below is in another network namespace, or this is an 802.1ad device.
        _ => Error::NotATrunk {
            trunk: device.name.to_string(),
            what: "a VLAN device",
        },
    })
}

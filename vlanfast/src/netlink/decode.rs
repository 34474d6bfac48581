//! Decodes rtnetlink messages about devices, addresses and namespaces.
//!
//! Index and flags come from the fixed header of a message, and names are bytes. Attributes that are not needed may
//! have any value. A message is [`Undecodable`] if an attribute that is needed is missing or has an unexpected length;
//! what it is about never counts as absent.

use std::net::IpAddr;

use vlanfast_common::{Mac, Vid};

use super::attrs::{Attributes, Malformed, TOO_SHORT, Value, half, word};
use crate::state::{
    name::Name,
    snapshot::{Ifindex, Link, LinkKind, Mode, Nsid, Promiscuity, Silence},
};

/// `include/uapi/linux/if_link.h`.
pub mod ifla {
    pub const ADDRESS: u16 = 1;
    pub const IFNAME: u16 = 3;
    pub const MTU: u16 = 4;
    pub const LINK: u16 = 5;
    pub const MASTER: u16 = 10;
    pub const LINKINFO: u16 = 18;
    pub const AF_SPEC: u16 = 26;
    pub const EXT_MASK: u16 = 29;
    pub const PROMISCUITY: u16 = 30;
    pub const LINK_NETNSID: u16 = 37;
    pub const XDP: u16 = 43;
    pub const TARGET_NETNSID: u16 = 46;
    pub const ALT_IFNAME: u16 = 53;

    /// Attributes nested in `LINKINFO`.
    pub const INFO_KIND: u16 = 1;
    pub const INFO_DATA: u16 = 2;
    pub const INFO_SLAVE_KIND: u16 = 4;

    /// The attribute in the IPv4 part of `AF_SPEC` that has the settings as an array of numbers.
    pub const INET_CONF: u16 = 1;

    pub const VLAN_ID: u16 = 1;
    pub const VLAN_PROTOCOL: u16 = 5;
    pub const MACVLAN_MODE: u16 = 1;

    pub const XDP_ATTACHED: u16 = 2;
    pub const XDP_PROG_ID: u16 = 4;
    pub const XDP_DRV_PROG_ID: u16 = 5;
    pub const XDP_SKB_PROG_ID: u16 = 6;
}

/// `NETNSA_NSID` of `include/uapi/linux/net_namespace.h`.
pub const NETNSA_NSID: u16 = 1;

/// The error for a message that lacks something that is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Undecodable {
    /// The device that the message is about, if its header is complete.
    pub ifindex: Option<Ifindex>,
    pub why: &'static str,
}

/// The properties of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkRecord {
    pub ifindex: Ifindex,
    pub name: Name,
    /// Flags such as `IFF_UP`.
    pub flags: u32,
    /// The hardware type, such as `ARPHRD_ETHER`.
    pub hardware: u16,
    /// The MAC; all zeroes if the device has no Ethernet address.
    pub mac: Mac,
    pub mtu: u32,
    /// The lower device, and the nsid of its namespace if that is another one.
    pub lower: Option<(Ifindex, Option<i32>)>,
    /// The device is a port of another device, which receives its frames.
    pub port: bool,
    pub promiscuity: u32,
    /// The device answers no ARP request (`arp_ignore` 8).
    pub ignores_arp: bool,
    /// The kind of a software device (`IFLA_INFO_KIND`); `None` for hardware and virtio.
    pub driver: Option<String>,
    pub kind: LinkKind,
    pub xdp: Option<Xdp>,
}

/// An XDP program that is attached to a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Xdp {
    pub program_id: u32,
    pub generic: bool,
}

impl LinkRecord {
    /// Converts the record into a device of a snapshot. `stands_for` converts the nsids in the message, which are those
    /// of our own namespace whichever namespace the message is about (`rtnl_fill_link_netnsid`).
    pub fn link(self, nsid: Nsid, stands_for: impl Fn(i32) -> Nsid) -> Link {
        let has = |flag: libc::c_int| self.flags & flag as u32 != 0;
        Link {
            mac: self.mac,
            up: has(libc::IFF_UP),
            mtu: self.mtu,
            kind: self.kind,
            lower: self
                .lower
                .map(|(index, id)| (id.map_or(nsid, stands_for), index)),
            port: self.port,
            promiscuity: Promiscuity {
                count: self.promiscuity,
                by_hand: has(libc::IFF_PROMISC),
            },
            silence: match (has(libc::IFF_NOARP), self.ignores_arp) {
                (true, _) => Silence::All,
                (false, true) => Silence::Ipv4,
                (false, false) => Silence::None,
            },
            name: self.name,
        }
    }
}

/// Decodes a device (`struct ifinfomsg` and its attributes).
pub fn device(body: &[u8]) -> Result<LinkRecord, Undecodable> {
    whole_device(body).map_err(|Malformed(why)| Undecodable {
        ifindex: ifindex(body),
        why,
    })
}

fn whole_device(body: &[u8]) -> Result<LinkRecord, Malformed> {
    const HEADER: usize = 16;
    let attributes = Attributes::behind(body, HEADER)?;
    let mut device = LinkRecord {
        ifindex: ifindex(body).ok_or(Malformed("it has no index"))?,
        name: Name::default(),
        flags: word(body, 8)?,
        hardware: half(body, 2)?,
        mac: Mac::default(),
        mtu: 0,
        lower: None,
        port: false,
        promiscuity: 0,
        ignores_arp: false,
        driver: None,
        kind: LinkKind::Other,
        xdp: None,
    };
    let (mut lower, mut lower_nsid) = (None, None);
    let (mut has_master, mut is_vrf) = (false, false);
    for (kind, value) in attributes.iter() {
        match kind {
            ifla::IFNAME => device.name = Name::new(value.text()),
            // An address of another length belongs to other hardware or a tunnel.
            ifla::ADDRESS => device.mac = value.array().map(Mac).unwrap_or_default(),
            ifla::MTU => device.mtu = value.u32()?,
            ifla::LINK => lower = Some(Ifindex(value.u32()?)),
            ifla::LINK_NETNSID => lower_nsid = Some(value.i32()?),
            ifla::MASTER => has_master = value.u32()? != 0,
            ifla::PROMISCUITY => device.promiscuity = value.u32()?,
            ifla::AF_SPEC => device.ignores_arp = ignores_arp(value.nested()?)?,
            ifla::LINKINFO => {
                let info = value.nested()?;
                (device.driver, device.kind) = driver(info)?;
                is_vrf = info
                    .get(ifla::INFO_SLAVE_KIND)
                    .is_some_and(|kind| kind.text() == b"vrf");
            }
            ifla::XDP => device.xdp = xdp(value.nested()?)?,
            _ => {}
        }
    }
    // The limit is `IFNAMSIZ` without the NUL.
    if !(1..16).contains(&device.name.as_bytes().len()) {
        return Err(Malformed("it has no name"));
    }
    device.lower = lower.map(|lower| (lower, lower_nsid));
    // A VRF only affects routes and leaves the frames to the device.
    device.port = has_master && !is_vrf;
    Ok(device)
}

/// Whether a device answers no ARP request because of its own `arp_ignore`. The setting for all devices of its
/// namespace is not in the message.
fn ignores_arp(families: Attributes<'_>) -> Result<bool, Malformed> {
    /// `IPV4_DEVCONF_ARP_IGNORE` of `include/uapi/linux/ip.h`; the first setting is number 1.
    const ARP_IGNORE: usize = 19;
    let Some(ipv4) = families.get(libc::AF_INET as u16) else {
        return Ok(false);
    };
    let settings = ipv4.nested()?.get(ifla::INET_CONF).map(Value::bytes);
    let it = settings.and_then(|settings| settings.chunks_exact(4).nth(ARP_IGNORE - 1));
    Ok(it.is_some_and(|it| it == NEVER.to_ne_bytes()))
}

/// The value of `arp_ignore` with which a device never answers.
pub const NEVER: u32 = 8;

/// Decodes the kind of a software device (`IFLA_LINKINFO`).
fn driver(info: Attributes<'_>) -> Result<(Option<String>, LinkKind), Malformed> {
    let Some(driver) = info.get(ifla::INFO_KIND).map(Value::text) else {
        return Ok((None, LinkKind::Other));
    };
    let data = || {
        info.need(ifla::INFO_DATA, "it has no data about its kind")?
            .nested()
    };
    let kind = match driver {
        b"vlan" => vlan(data()?)?,
        b"macvlan" => LinkKind::Macvlan(mode(data()?)?),
        b"macvtap" => LinkKind::Macvtap(mode(data()?)?),
        b"ipvlan" | b"ipvtap" => LinkKind::Ipvlan,
        _ => LinkKind::Other,
    };
    Ok((Some(String::from_utf8_lossy(driver).into_owned()), kind))
}

fn vlan(data: Attributes<'_>) -> Result<LinkKind, Malformed> {
    const C_TAG: u16 = 0x8100;
    let protocol = data.need(ifla::VLAN_PROTOCOL, "it has no tag protocol")?;
    let id = data.need(ifla::VLAN_ID, "it has no VLAN id")?.u16()?;
    match (protocol.be16()?, id) {
        (C_TAG, 0..4096) => Ok(LinkKind::Vlan(Vid::new(id))),
        (C_TAG, _) => Err(Malformed("its VLAN id is invalid")),
        _ => Ok(LinkKind::ServiceVlan),
    }
}

fn mode(data: Attributes<'_>) -> Result<Mode, Malformed> {
    let number = data.need(ifla::MACVLAN_MODE, "it has no mode")?.u32()?;
    // A macvlan in an unknown mode receives frames, but it is not known which.
    Mode::from_number(number).ok_or(Malformed("its mode is unknown"))
}

fn xdp(attributes: Attributes<'_>) -> Result<Option<Xdp>, Malformed> {
    /// The values of `XDP_ATTACHED_SKB` (generic mode) and `XDP_ATTACHED_MULTI` (a program in hardware, and one more).
    const SKB: u8 = 2;
    const MULTI: u8 = 4;
    let id = |kind| attributes.get(kind).map(Value::u32).transpose();
    let attached = attributes.need(
        ifla::XDP_ATTACHED,
        "it does not say whether XDP is attached",
    )?;
    let (ids, generic) = match attached.u8()? {
        MULTI => {
            let native = id(ifla::XDP_DRV_PROG_ID)?;
            (native.or(id(ifla::XDP_SKB_PROG_ID)?), native.is_none())
        }
        how => (id(ifla::XDP_PROG_ID)?, how == SKB),
    };
    Ok(ids.filter(|id| *id != 0).map(|program_id| Xdp {
        program_id,
        generic,
    }))
}

/// Decodes an address in use, with its device (`struct ifaddrmsg` and its attributes). Returns `None` for an address
/// that is not in use or not an IP address.
pub fn address(body: &[u8]) -> Result<Option<(Ifindex, IpAddr)>, Undecodable> {
    whole_address(body).map_err(|Malformed(why)| Undecodable {
        ifindex: ifindex(body),
        why,
    })
}

fn whole_address(body: &[u8]) -> Result<Option<(Ifindex, IpAddr)>, Malformed> {
    const HEADER: usize = 8;
    let [family, _, flags, _] = *body.first_chunk().ok_or(TOO_SHORT)?;
    let attributes = Attributes::behind(body, HEADER)?;
    let ifindex = ifindex(body).ok_or(Malformed("it has no index"))?;
    // Duplicate address detection has not ended or has failed (RFC 4862 clauses 5.4 and 5.4.5). The kernel sends
    // another notification when it succeeds, and already answers for an optimistic address (RFC 4429).
    let has = |flag| u32::from(flags) & flag != 0;
    let is_tentative = has(libc::IFA_F_TENTATIVE) && !has(libc::IFA_F_OPTIMISTIC);
    let is_ip = [libc::AF_INET, libc::AF_INET6].contains(&family.into());
    if !is_ip || is_tentative || has(libc::IFA_F_DADFAILED) {
        return Ok(None);
    }
    // `IFA_ADDRESS` is the peer's address on a point-to-point device, the same address on others, and the only
    // attribute for IPv6.
    let own = attributes.get(libc::IFA_LOCAL);
    let value = match own {
        Some(own) => own,
        None => attributes.need(libc::IFA_ADDRESS, "it has no address")?,
    };
    let address = match i32::from(family) {
        libc::AF_INET => value.array::<4>()?.into(),
        _ => value.array::<16>()?.into(),
    };
    Ok(Some((ifindex, address)))
}

/// Decodes the nsid in a message about namespaces (`struct rtgenmsg` and its attributes); `None` if there is none yet.
pub fn id(body: &[u8]) -> Result<Option<i32>, Malformed> {
    /// The length of `struct rtgenmsg`, which is one byte with padding.
    const HEADER: usize = 4;
    let attributes = Attributes::behind(body, HEADER)?;
    let id = attributes.need(NETNSA_NSID, "it has no id")?.i32()?;
    Ok((id >= 0).then_some(id))
}

/// Returns the index from the header of a message about a device, an address, a qdisc or a filter. All have it at the
/// same offset.
pub fn ifindex(body: &[u8]) -> Option<Ifindex> {
    let index = word(body, 4).ok()?;
    (1..=i32::MAX as u32)
        .contains(&index)
        .then_some(Ifindex(index))
}

#[cfg(test)]
mod tests;

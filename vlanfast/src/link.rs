//! What a device is, from what rtnetlink says of it.

use rtnetlink::packet_route::link::{
    InfoData, InfoVlan, LinkAttribute, LinkInfo, LinkMessage, VlanProtocol,
};
use vlanfast_common::Vid;

/// The name of a device.
pub fn name(link: &LinkMessage) -> String {
    let name = link
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.clone()),
            _ => None,
        });
    name.unwrap_or_else(|| link.header.index.to_string())
}

/// The device below, by its index (`IFLA_LINK`).
pub fn lower(link: &LinkMessage) -> Option<u32> {
    link.attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::Link(index) => Some(*index),
            _ => None,
        })
}

/// The kind of a software device (`IFLA_INFO_KIND`); hardware and virtio have none.
pub fn info_kind(link: &LinkMessage) -> Option<String> {
    info(link).find_map(|info| match info {
        LinkInfo::Kind(kind) => Some(kind.to_string()),
        _ => None,
    })
}

/// The VID of an 802.1Q device; `None` for 802.1ad, whose VIDs are another number space.
pub fn vlan(link: &LinkMessage) -> Option<Vid> {
    let attributes = info(link).find_map(|info| match info {
        LinkInfo::Data(InfoData::Vlan(attributes)) => Some(attributes),
        _ => None,
    })?;
    if attributes.contains(&InfoVlan::Protocol(VlanProtocol::Ieee8021Ad)) {
        return None;
    }
    attributes.iter().find_map(|attribute| match attribute {
        InfoVlan::Id(id) => Some(Vid::from_tci(*id)),
        _ => None,
    })
}

/// The attributes that go by the kind of device (`IFLA_LINKINFO`).
pub fn info(link: &LinkMessage) -> impl Iterator<Item = &LinkInfo> {
    link.attributes
        .iter()
        .filter_map(|attribute| match attribute {
            LinkAttribute::LinkInfo(info) => Some(info),
            _ => None,
        })
        .flatten()
}

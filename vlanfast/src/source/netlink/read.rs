//! What rtnetlink says of a device, an address or a namespace, as plain data.

use std::net::IpAddr;

use rtnetlink::packet_route::{
    RouteNetlinkMessage,
    address::{AddressAttribute, AddressHeaderFlags},
    link::{
        InfoData, InfoKind, InfoMacVlan, InfoMacVtap, InfoPortKind, LinkAttribute, LinkFlags,
        LinkInfo, LinkMessage,
    },
    nsid::NsidAttribute,
};
use vlanfast_common::Mac;

use crate::{
    link::{info, name, vlan},
    state::snapshot::{Ifindex, Kind, Link, Mode, Nsid, Promiscuity},
};

/// A device of a namespace. `stands_for` translates the kernel's ids.
pub fn link(nsid: Nsid, message: &LinkMessage, stands_for: impl Fn(i32) -> Nsid) -> Link {
    let mut mac = Mac::default();
    let (mut lower, mut lower_nsid) = (None, nsid);
    let (mut has_master, mut promiscuity, mut mtu) = (false, 0, 0);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Address(bytes) => {
                mac = bytes.first_chunk().copied().map(Mac).unwrap_or_default();
            }
            LinkAttribute::Link(index) => lower = Some(Ifindex(*index)),
            // By the ids of our namespace, whichever was asked about (`rtnl_fill_link_netnsid`).
            LinkAttribute::LinkNetNsId(id) => lower_nsid = stands_for(*id),
            LinkAttribute::Controller(_) => has_master = true,
            LinkAttribute::Mtu(bytes) => mtu = *bytes,
            LinkAttribute::Promiscuity(count) => promiscuity = *count,
            _ => {}
        }
    }
    Link {
        name: name(message),
        mac,
        up: message.header.flags.contains(LinkFlags::Up),
        mtu,
        kind: kind(message),
        lower: lower.map(|index| (lower_nsid, index)),
        // A VRF is about routes alone, and leaves frames to the device.
        port: has_master
            && !info(message).any(|info| *info == LinkInfo::PortKind(InfoPortKind::Vrf)),
        promiscuity: Promiscuity {
            count: promiscuity,
            by_hand: message.header.flags.contains(LinkFlags::Promisc),
        },
    }
}

/// The id that an answer or an event about ids names.
pub fn id(answer: &RouteNetlinkMessage) -> Option<i32> {
    let RouteNetlinkMessage::NewNsId(message) = answer else {
        return None;
    };
    message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            // -1 is "none yet".
            NsidAttribute::Id(id) if *id >= 0 => Some(*id),
            _ => None,
        })
}

/// An address that is in use, and the device that has it.
pub fn address(answer: &RouteNetlinkMessage) -> Option<(Ifindex, IpAddr)> {
    let RouteNetlinkMessage::NewAddress(message) = answer else {
        return None;
    };
    // Someone else may have it, or has it (RFC 4862 clauses 5.4 and 5.4.5). The kernel says so again once it is
    // sure, and answers for an optimistic one until then (RFC 4429).
    let has = |flag| message.header.flags.contains(flag);
    let is_tentative = has(AddressHeaderFlags::Tentative) && !has(AddressHeaderFlags::Optimistic);
    if is_tentative || has(AddressHeaderFlags::Dadfailed) {
        return None;
    }
    let (mut own, mut peer) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => own = Some(*address),
            // The peer's on a point-to-point device; else the same, and for IPv6 the only one.
            AddressAttribute::Address(address) => peer = Some(*address),
            _ => {}
        }
    }
    Some((Ifindex(message.header.index), own.or(peer)?))
}

fn kind(message: &LinkMessage) -> Kind {
    let mut is_vlan = false;
    for info in info(message) {
        match info {
            LinkInfo::Kind(InfoKind::Vlan) => is_vlan = true,
            LinkInfo::Kind(InfoKind::IpVlan | InfoKind::IpVtap) => return Kind::Ipvlan,
            LinkInfo::Data(InfoData::MacVlan(data)) => {
                let mode = data.iter().find_map(|data| match data {
                    InfoMacVlan::Mode(mode) => Mode::from_number((*mode).into()),
                    _ => None,
                });
                return mode.map_or(Kind::Other, Kind::Macvlan);
            }
            LinkInfo::Data(InfoData::MacVtap(data)) => {
                let mode = data.iter().find_map(|data| match data {
                    InfoMacVtap::Mode(mode) => Mode::from_number((*mode).into()),
                    _ => None,
                });
                return mode.map_or(Kind::Other, Kind::Macvtap);
            }
            _ => {}
        }
    }
    match (vlan(message), is_vlan) {
        (Some(vid), _) => Kind::Vlan(vid),
        (None, true) => Kind::ServiceVlan,
        (None, false) => Kind::Other,
    }
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_route::address::AddressMessage;

    use super::*;

    #[test]
    fn an_address_counts_once_its_detection_of_duplicates_has_ended() {
        use AddressHeaderFlags as Flags;
        let own: IpAddr = "fd00::1".parse().unwrap();
        let read = |flags| {
            let mut message = AddressMessage::default();
            message.header.index = 7;
            message.header.flags = flags;
            message.attributes = vec![AddressAttribute::Address(own)];
            address(&RouteNetlinkMessage::NewAddress(message))
        };
        let known = Some((Ifindex(7), own));
        assert_eq!(read(Flags::Permanent), known);
        assert_eq!(read(Flags::Permanent | Flags::Tentative), None);
        assert_eq!(read(Flags::Tentative | Flags::Dadfailed), None);
        assert_eq!(read(Flags::Tentative | Flags::Optimistic), known);
    }
}

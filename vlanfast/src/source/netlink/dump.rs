//! Questions to the kernel about the devices of any namespace, and its answers as plain data.

use std::{fs::File, net::IpAddr, os::fd::AsRawFd};

use anyhow::Context;
use futures_util::StreamExt;
use rtnetlink::{
    Handle,
    packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload},
    packet_route::{
        RouteNetlinkMessage,
        address::{AddressAttribute, AddressHeaderFlags, AddressMessage},
        link::{
            InfoData, InfoKind, InfoMacVlan, InfoMacVtap, LinkAttribute, LinkExtentMask, LinkFlags,
            LinkInfo, LinkMessage,
        },
        nsid::{NsidAttribute, NsidMessage},
    },
};
use vlanfast_common::Mac;

use crate::{
    link::{info, name, vlan},
    state::snapshot::{Ifindex, Kind, Link, Mode, Namespace, Nsid},
};

/// An address and the device that has it.
pub type Address = (Ifindex, IpAddr);

/// A connection that can ask about every namespace with an id.
pub struct Questions {
    handle: Handle,
    /// The id that our own namespace has in itself, which the kernel uses where it means us.
    own: Option<i32>,
}

impl Questions {
    pub async fn connect() -> anyhow::Result<Self> {
        // Without strict checking, dumps of addresses ignore which namespace is asked about.
        let (connection, handle, _) = rtnetlink::new_connection_with_strict_check()
            .context("failed to open a netlink socket")?;
        tokio::spawn(connection);
        let mut questions = Self { handle, own: None };
        let own = NsidAttribute::Pid(std::process::id());
        // The kernel would give it one at the first dump that mentions us; then we would not know it.
        questions.give_id(own.clone()).await?;
        questions.own = questions.id(own).await?;
        Ok(questions)
    }

    /// The namespace that an id of the kernel's stands for.
    pub fn nsid(&self, id: Option<i32>) -> Nsid {
        match id {
            Some(id) if Some(id) != self.own => Nsid::Other(id),
            _ => Nsid::Own,
        }
    }

    /// Gives the namespace of a file an id, if it has none.
    pub async fn give_id_to(&self, file: &File) -> anyhow::Result<()> {
        self.give_id(NsidAttribute::Fd(file.as_raw_fd() as u32))
            .await
    }

    async fn give_id(&self, namespace: NsidAttribute) -> anyhow::Result<()> {
        let mut message = NsidMessage::default();
        message.attributes = vec![NsidAttribute::Id(-1), namespace];
        let request = RouteNetlinkMessage::NewNsId(message);
        match self.ask(request, NLM_F_REQUEST | NLM_F_ACK).await {
            Ok(_) => Ok(()),
            // It has one; or it died since.
            Err(error) if [Some(libc::EEXIST), Some(libc::EINVAL)].contains(&errno(&error)) => {
                Ok(())
            }
            Err(error) => Err(error).context("failed to give a namespace an id"),
        }
    }

    async fn id(&self, namespace: NsidAttribute) -> anyhow::Result<Option<i32>> {
        let mut message = NsidMessage::default();
        message.attributes = vec![namespace];
        let request = RouteNetlinkMessage::GetNsId(message);
        let answers = self.ask(request, NLM_F_REQUEST).await?;
        Ok(answers.iter().find_map(id_of))
    }

    /// The other namespaces that have an id.
    pub async fn namespaces(&self) -> anyhow::Result<Vec<Nsid>> {
        let request = RouteNetlinkMessage::GetNsId(NsidMessage::default());
        let answers = self
            .ask(request, NLM_F_REQUEST | NLM_F_DUMP)
            .await
            .context("failed to list the network namespaces")?;
        Ok(answers
            .iter()
            .filter_map(id_of)
            .map(|id| self.nsid(Some(id)))
            .filter(|nsid| *nsid != Nsid::Own)
            .collect())
    }

    /// Every device of a namespace; `None` if the namespace is gone.
    pub async fn namespace(&self, nsid: Nsid) -> anyhow::Result<Option<Namespace>> {
        let Some(links) = self.links(nsid, None).await? else {
            return Ok(None);
        };
        let mut namespace = Namespace {
            links: links.into_iter().collect(),
            ..Namespace::default()
        };
        for (ifindex, address) in self.addresses(nsid, None).await? {
            namespace
                .addresses
                .entry(ifindex)
                .or_default()
                .push(address);
        }
        Ok(Some(namespace))
    }

    /// One device, `None` if it or its namespace is gone, and its addresses.
    pub async fn link(
        &self,
        nsid: Nsid,
        ifindex: Ifindex,
    ) -> anyhow::Result<Option<(Link, Vec<IpAddr>)>> {
        let links = self.links(nsid, Some(ifindex)).await?.unwrap_or_default();
        let Some((_, link)) = links.into_iter().find(|(index, _)| *index == ifindex) else {
            return Ok(None);
        };
        let addresses = self.addresses(nsid, Some(ifindex)).await?;
        let addresses = addresses.into_iter().filter(|(index, _)| *index == ifindex);
        Ok(Some((
            link,
            addresses.map(|(_, address)| address).collect(),
        )))
    }

    async fn links(
        &self,
        nsid: Nsid,
        only: Option<Ifindex>,
    ) -> anyhow::Result<Option<Vec<(Ifindex, Link)>>> {
        let mut message = LinkMessage::default();
        // Statistics are most of an answer otherwise.
        message
            .attributes
            .push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        if let Nsid::Other(id) = nsid {
            message.attributes.push(LinkAttribute::IfNetnsId(id));
        }
        let flags = match only {
            Some(ifindex) => {
                message.header.index = ifindex.0;
                NLM_F_REQUEST
            }
            None => NLM_F_REQUEST | NLM_F_DUMP,
        };
        let answers = match self.ask(RouteNetlinkMessage::GetLink(message), flags).await {
            Err(error) if is_gone(&error) => return Ok(None),
            answers => answers.context("failed to list devices")?,
        };
        Ok(Some(
            answers
                .iter()
                .filter_map(|answer| match answer {
                    RouteNetlinkMessage::NewLink(message) => Some(message),
                    _ => None,
                })
                .map(|message| (Ifindex(message.header.index), self.read(nsid, message)))
                .collect(),
        ))
    }

    async fn addresses(&self, nsid: Nsid, only: Option<Ifindex>) -> anyhow::Result<Vec<Address>> {
        let mut message = AddressMessage::default();
        if let Nsid::Other(id) = nsid {
            message.attributes.push(AddressAttribute::TargetNetNsId(id));
        }
        if let Some(ifindex) = only {
            message.header.index = ifindex.0;
        }
        let request = RouteNetlinkMessage::GetAddress(message);
        let answers = match self.ask(request, NLM_F_REQUEST | NLM_F_DUMP).await {
            Err(error) if is_gone(&error) => return Ok(vec![]),
            answers => answers.context("failed to list addresses")?,
        };
        Ok(answers.iter().filter_map(address).collect())
    }

    fn read(&self, nsid: Nsid, message: &LinkMessage) -> Link {
        let mut mac = Mac::default();
        let (mut lower, mut lower_nsid) = (None, nsid);
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::Address(bytes) => {
                    mac = bytes.first_chunk().copied().map(Mac).unwrap_or_default();
                }
                LinkAttribute::Link(index) => lower = Some(Ifindex(*index)),
                // By the ids of our namespace, whichever was asked about (`rtnl_fill_link_netnsid`).
                LinkAttribute::LinkNetNsId(id) => lower_nsid = self.nsid(Some(*id)),
                _ => {}
            }
        }
        Link {
            name: name(message),
            mac,
            up: message.header.flags.contains(LinkFlags::Up),
            kind: kind(message),
            lower: lower.map(|index| (lower_nsid, index)),
        }
    }

    async fn ask(
        &self,
        request: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Vec<RouteNetlinkMessage>, rtnetlink::Error> {
        let mut message = NetlinkMessage::from(request);
        message.header.flags = flags;
        let mut handle = self.handle.clone();
        let mut stream = handle.request(message)?;
        let mut answers = vec![];
        while let Some(answer) = stream.next().await {
            match answer.payload {
                NetlinkPayload::InnerMessage(message) => answers.push(message),
                NetlinkPayload::Error(error) if error.code.is_some() => {
                    return Err(rtnetlink::Error::NetlinkError(error));
                }
                _ => {}
            }
        }
        Ok(answers)
    }
}

fn errno(error: &rtnetlink::Error) -> Option<i32> {
    match error {
        rtnetlink::Error::NetlinkError(error) => Some(-error.raw_code()),
        _ => None,
    }
}

/// No such device, or no namespace has the id.
fn is_gone(error: &rtnetlink::Error) -> bool {
    [Some(libc::ENODEV), Some(libc::EINVAL), Some(libc::ENONET)].contains(&errno(error))
}

fn id_of(answer: &RouteNetlinkMessage) -> Option<i32> {
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

fn address(answer: &RouteNetlinkMessage) -> Option<Address> {
    let RouteNetlinkMessage::NewAddress(message) = answer else {
        return None;
    };
    // Someone else has it, and the kernel does not use it (RFC 4862 clause 5.4.5).
    if message.header.flags.contains(AddressHeaderFlags::Dadfailed) {
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

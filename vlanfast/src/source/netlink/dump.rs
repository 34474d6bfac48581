//! Questions to the kernel about the devices of any namespace, and its answers as plain data.

use std::{collections::BTreeSet, fs::File, net::IpAddr, num::NonZeroI32, os::fd::AsRawFd};

use anyhow::Context;
use futures_util::StreamExt;
use rtnetlink::{
    Handle,
    packet_core::{
        ErrorMessage, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage,
        NetlinkPayload,
    },
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

/// How often a dump is tried that something changes in the middle of.
const DUMPS: u32 = 3;

/// An address and the device that has it.
type Address = (Ifindex, IpAddr);

/// A namespace as it was read.
pub struct Read {
    pub namespace: Namespace,
    /// Nothing changed meanwhile; else something may be missing.
    pub whole: bool,
}

/// A connection that can ask about every namespace with an id.
pub struct Questions {
    handle: Handle,
    /// The id that our own namespace has in itself, which the kernel uses where it means us.
    own: Option<i32>,
}

impl Questions {
    pub async fn connect() -> anyhow::Result<Self> {
        // Without strict checking, dumps of addresses ignore which namespace is asked about.
        let (mut connection, handle, _) = rtnetlink::new_connection_with_strict_check()
            .context("failed to open a netlink socket")?;
        // A dump that fails says so at its end (`netlink_dump_done`).
        connection.set_forward_done(true);
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
        Ok(answers.all.iter().find_map(id_of))
    }

    /// The other namespaces that have an id.
    pub async fn namespaces(&self) -> anyhow::Result<BTreeSet<Nsid>> {
        let request = RouteNetlinkMessage::GetNsId(NsidMessage::default());
        let answers = self
            .dump(&request)
            .await
            .context("failed to list the network namespaces")?;
        Ok(answers
            .all
            .iter()
            .filter_map(id_of)
            .map(|id| self.nsid(Some(id)))
            .filter(|nsid| *nsid != Nsid::Own)
            .collect())
    }

    /// Every device of a namespace; `None` if the namespace is gone, or not ours to see.
    pub async fn namespace(&self, nsid: Nsid) -> anyhow::Result<Option<Read>> {
        let (Some(links), Some(addresses)) =
            (self.links(nsid).await?, self.addresses(nsid, None).await?)
        else {
            return Ok(None);
        };
        let mut namespace = Namespace::default();
        for message in links.all.iter().filter_map(link_message) {
            let ifindex = Ifindex(message.header.index);
            namespace.links.insert(ifindex, self.read(nsid, message));
            namespace.addresses.insert(ifindex, vec![]);
        }
        for (ifindex, address) in addresses.all.iter().filter_map(address) {
            let own = namespace.addresses.entry(ifindex).or_default();
            own.push(address);
        }
        Ok(Some(Read {
            namespace,
            whole: links.whole && addresses.whole,
        }))
    }

    /// One device, `None` if it or its namespace is gone, and its addresses.
    pub async fn link(
        &self,
        nsid: Nsid,
        ifindex: Ifindex,
    ) -> anyhow::Result<Option<(Link, Vec<IpAddr>)>> {
        let mut request = about(nsid);
        request.header.index = ifindex.0;
        let request = RouteNetlinkMessage::GetLink(request);
        // With an acknowledgement, or an answer that can't be read would be waited for.
        let answers = match self.ask(request, NLM_F_REQUEST | NLM_F_ACK).await {
            Err(error) if errno(&error) == Some(libc::ENODEV) || is_gone(nsid, &error) => {
                return Ok(None);
            }
            answers => answers.context("failed to ask for a device")?,
        };
        let message = answers.all.iter().find_map(link_message);
        let message = message.context("the kernel's answer about a device can't be read")?;
        let Some(addresses) = self.addresses(nsid, Some(ifindex)).await? else {
            return Ok(None);
        };
        let own = |(index, address)| (index == ifindex).then_some(address);
        let addresses = addresses.all.iter().filter_map(address).filter_map(own);
        Ok(Some((self.read(nsid, message), addresses.collect())))
    }

    async fn links(&self, nsid: Nsid) -> anyhow::Result<Option<Answers>> {
        let request = RouteNetlinkMessage::GetLink(about(nsid));
        match self.dump(&request).await {
            Err(error) if is_gone(nsid, &error) => Ok(None),
            answers => answers.map(Some).context("failed to list devices"),
        }
    }

    async fn addresses(
        &self,
        nsid: Nsid,
        only: Option<Ifindex>,
    ) -> anyhow::Result<Option<Answers>> {
        let mut message = AddressMessage::default();
        if let Nsid::Other(id) = nsid {
            message.attributes.push(AddressAttribute::TargetNetNsId(id));
        }
        if let Some(ifindex) = only {
            message.header.index = ifindex.0;
        }
        match self.dump(&RouteNetlinkMessage::GetAddress(message)).await {
            // With an index, also that there is no such device.
            Err(error) if errno(&error) == Some(libc::ENODEV) || is_gone(nsid, &error) => Ok(None),
            answers => answers.map(Some).context("failed to list addresses"),
        }
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

    /// A dump, repeated where something changed in its middle: before Linux 6.8 it may have skipped
    /// over a device then.
    async fn dump(&self, request: &RouteNetlinkMessage) -> Result<Answers, rtnetlink::Error> {
        let mut answers = Answers::default();
        for _ in 0..DUMPS {
            answers = self
                .ask(request.clone(), NLM_F_REQUEST | NLM_F_DUMP)
                .await?;
            if answers.whole {
                break;
            }
        }
        Ok(answers)
    }

    async fn ask(
        &self,
        request: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Answers, rtnetlink::Error> {
        let mut message = NetlinkMessage::from(request);
        message.header.flags = flags;
        let mut handle = self.handle.clone();
        let mut stream = handle.request(message)?;
        let mut answers = Answers {
            all: vec![],
            whole: true,
        };
        while let Some(answer) = stream.next().await {
            answers.whole &= answer.header.flags & NLM_F_DUMP_INTR == 0;
            match answer.payload {
                NetlinkPayload::InnerMessage(message) => answers.all.push(message),
                NetlinkPayload::Error(error) if error.code.is_some() => {
                    return Err(rtnetlink::Error::NetlinkError(error));
                }
                NetlinkPayload::Done(done) => {
                    if let Some(code) = NonZeroI32::new(done.code) {
                        let mut error = ErrorMessage::default();
                        error.code = Some(code);
                        return Err(rtnetlink::Error::NetlinkError(error));
                    }
                }
                _ => {}
            }
        }
        Ok(answers)
    }
}

/// What the kernel said to one question.
#[derive(Default)]
struct Answers {
    all: Vec<RouteNetlinkMessage>,
    /// Nothing changed while it was said.
    whole: bool,
}

/// A question about the devices of a namespace.
fn about(nsid: Nsid) -> LinkMessage {
    let mut message = LinkMessage::default();
    // Statistics are most of an answer otherwise.
    message
        .attributes
        .push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    if let Nsid::Other(id) = nsid {
        message.attributes.push(LinkAttribute::IfNetnsId(id));
    }
    message
}

fn link_message(answer: &RouteNetlinkMessage) -> Option<&LinkMessage> {
    match answer {
        RouteNetlinkMessage::NewLink(message) => Some(message),
        _ => None,
    }
}

fn errno(error: &rtnetlink::Error) -> Option<i32> {
    match error {
        rtnetlink::Error::NetlinkError(error) => Some(-error.raw_code()),
        _ => None,
    }
}

/// No namespace has the id, or it belongs to a user namespace that is not ours to look into. About our
/// own, an error is an error.
fn is_gone(nsid: Nsid, error: &rtnetlink::Error) -> bool {
    let gone = [libc::EINVAL, libc::ENONET, libc::EACCES, libc::EPERM];
    nsid != Nsid::Own && errno(error).is_some_and(|code| gone.contains(&code))
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

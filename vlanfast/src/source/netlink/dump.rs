//! Questions to the kernel about the devices of any namespace, and its answers as plain data.

use std::{
    cell::Cell,
    collections::BTreeSet,
    fs::File,
    io,
    net::IpAddr,
    os::fd::{AsRawFd, BorrowedFd},
};

use super::read;
use crate::state::snapshot::{Ifindex, Link, Namespace, Nsid};
use anyhow::Context;
use nix::sys::{
    socket::{setsockopt, sockopt::ReceiveTimeout},
    time::TimeVal,
};
use rtnetlink::{
    packet_core::{
        NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer, NetlinkMessage,
        NetlinkPayload,
    },
    packet_route::{
        RouteNetlinkMessage,
        address::{AddressAttribute, AddressMessage},
        link::{LinkAttribute, LinkExtentMask, LinkMessage},
        nsid::{NsidAttribute, NsidMessage},
    },
    sys::{Socket, protocols::NETLINK_ROUTE},
};

/// A kernel that answers takes milliseconds.
const PATIENCE: TimeVal = TimeVal::new(30, 0);
/// The kernel fills no more than this at once (`netlink_recvmsg`, NLMSG_GOODSIZE).
const DATAGRAM: usize = 64 << 10;

/// A namespace as it was read.
pub struct Read {
    pub namespace: Namespace,
    /// Nothing changed meanwhile; else something may be missing.
    pub whole: bool,
}

/// A socket that can ask about every namespace with an id, one question at a time.
///
/// It blocks: the kernel computes a dump while it is read. And it takes each answer apart as it comes: the
/// devices of a large host, spelled out in full, are tens of megabytes.
pub struct Questions {
    socket: Socket,
    /// Tells the answers to the last question from late ones to another.
    number: Cell<u32>,
    /// The id that our own namespace has in itself, which the kernel uses where it means us.
    own: Option<i32>,
}

impl Questions {
    pub fn open() -> anyhow::Result<Self> {
        let open = || -> io::Result<Socket> {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            // Without strict checking, dumps of addresses ignore which namespace is asked about.
            socket.set_netlink_get_strict_chk(true)?;
            // SAFETY: the socket is borrowed for as long, and owns its descriptor.
            let borrowed = unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) };
            setsockopt(&borrowed, ReceiveTimeout, &PATIENCE)?;
            Ok(socket)
        };
        let mut questions = Self {
            socket: open().context("failed to open a netlink socket")?,
            number: Cell::new(0),
            own: None,
        };
        let own = NsidAttribute::Pid(std::process::id());
        // The kernel would give it one at the first dump that mentions us; then we would not know it.
        questions.give_id(own.clone())?;
        questions.own = questions.id(own)?;
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
    pub fn give_id_to(&self, file: &File) -> anyhow::Result<()> {
        self.give_id(NsidAttribute::Fd(file.as_raw_fd() as u32))
    }

    fn give_id(&self, namespace: NsidAttribute) -> anyhow::Result<()> {
        let mut message = NsidMessage::default();
        message.attributes = vec![NsidAttribute::Id(-1), namespace];
        let request = RouteNetlinkMessage::NewNsId(message);
        match self.ask(&request, NLM_F_REQUEST | NLM_F_ACK, |_| {}) {
            Ok(_) => Ok(()),
            // It has one; or it died since.
            Err(error) if [Some(libc::EEXIST), Some(libc::EINVAL)].contains(&errno(&error)) => {
                Ok(())
            }
            Err(error) => Err(error).context("failed to give a namespace an id"),
        }
    }

    fn id(&self, namespace: NsidAttribute) -> anyhow::Result<Option<i32>> {
        let mut message = NsidMessage::default();
        message.attributes = vec![namespace];
        let request = RouteNetlinkMessage::GetNsId(message);
        let mut id = None;
        self.ask(&request, NLM_F_REQUEST | NLM_F_ACK, |answer| {
            id = id.or(read::id(&answer));
        })
        .context("failed to ask for the id of a namespace")?;
        Ok(id)
    }

    /// The other namespaces that have an id.
    pub fn namespaces(&self) -> anyhow::Result<BTreeSet<Nsid>> {
        let request = RouteNetlinkMessage::GetNsId(NsidMessage::default());
        let mut all = BTreeSet::new();
        let whole = self.dump(&request, |answer| all.extend(read::id(&answer)));
        whole.context("failed to list the network namespaces")?;
        let namespaces = all.into_iter().map(|id| self.nsid(Some(id)));
        Ok(namespaces.filter(|nsid| *nsid != Nsid::Own).collect())
    }

    /// Every device of a namespace; `None` if the namespace is gone, or not ours to see.
    pub fn namespace(&self, nsid: Nsid) -> anyhow::Result<Option<Read>> {
        match self.dump_namespace(nsid)? {
            // Once more: it is quiet most of the time.
            Some(Read { whole: false, .. }) => self.dump_namespace(nsid),
            read => Ok(read),
        }
    }

    fn dump_namespace(&self, nsid: Nsid) -> anyhow::Result<Option<Read>> {
        let mut namespace = Namespace::default();
        let request = RouteNetlinkMessage::GetLink(about(nsid));
        let links = self.dump(&request, |answer| {
            if let RouteNetlinkMessage::NewLink(message) = answer {
                let ifindex = Ifindex(message.header.index);
                namespace.links.insert(
                    ifindex,
                    read::link(nsid, &message, |id| self.nsid(Some(id))),
                );
                namespace.addresses.insert(ifindex, vec![]);
            }
        });
        let links = match links {
            Err(error) if is_gone(nsid, &error) => return Ok(None),
            whole => whole.context("failed to list devices")?,
        };
        let addresses = self.addresses(nsid, None, |ifindex, address| {
            namespace
                .addresses
                .entry(ifindex)
                .or_default()
                .push(address);
        })?;
        Ok(addresses.map(|addresses| Read {
            namespace,
            whole: links && addresses,
        }))
    }

    /// One device, `None` if it or its namespace is gone, and its addresses.
    pub fn link(
        &self,
        nsid: Nsid,
        ifindex: Ifindex,
    ) -> anyhow::Result<Option<(Link, Vec<IpAddr>)>> {
        let mut request = about(nsid);
        request.header.index = ifindex.0;
        let request = RouteNetlinkMessage::GetLink(request);
        let mut link = None;
        let asked = self.ask(&request, NLM_F_REQUEST | NLM_F_ACK, |answer| {
            if let RouteNetlinkMessage::NewLink(message) = answer {
                link = Some(read::link(nsid, &message, |id| self.nsid(Some(id))));
            }
        });
        match asked {
            Err(error) if errno(&error) == Some(libc::ENODEV) || is_gone(nsid, &error) => {
                return Ok(None);
            }
            asked => asked.context("failed to ask for a device")?,
        };
        let mut own = vec![];
        let addresses = self.addresses(nsid, Some(ifindex), |index, address| {
            if index == ifindex {
                own.push(address);
            }
        })?;
        Ok(link.zip(addresses).map(|(link, _)| (link, own)))
    }

    /// Hands over every address, or those of one device, and says whether nothing changed meanwhile;
    /// `None` if the device or the namespace is gone.
    fn addresses(
        &self,
        nsid: Nsid,
        only: Option<Ifindex>,
        mut each: impl FnMut(Ifindex, IpAddr),
    ) -> anyhow::Result<Option<bool>> {
        let mut message = AddressMessage::default();
        if let Nsid::Other(id) = nsid {
            message.attributes.push(AddressAttribute::TargetNetNsId(id));
        }
        if let Some(ifindex) = only {
            message.header.index = ifindex.0;
        }
        let request = RouteNetlinkMessage::GetAddress(message);
        let asked = self.dump(&request, |answer| {
            if let Some((ifindex, address)) = read::address(&answer) {
                each(ifindex, address);
            }
        });
        match asked {
            // With an index, also that there is no such device.
            Err(error) if errno(&error) == Some(libc::ENODEV) || is_gone(nsid, &error) => Ok(None),
            whole => whole.map(Some).context("failed to list addresses"),
        }
    }

    /// A dump; whether nothing changed in its middle. If something did, it may have skipped over a device
    /// (before Linux 6.8).
    fn dump(
        &self,
        request: &RouteNetlinkMessage,
        each: impl FnMut(RouteNetlinkMessage),
    ) -> io::Result<bool> {
        self.ask(request, NLM_F_REQUEST | NLM_F_DUMP, each)
    }

    /// Asks, and hands over what the kernel says; whether nothing changed while it said it.
    fn ask(
        &self,
        request: &RouteNetlinkMessage,
        flags: u16,
        mut each: impl FnMut(RouteNetlinkMessage),
    ) -> io::Result<bool> {
        let number = self.number.get().wrapping_add(1);
        self.number.set(number);
        let mut message = NetlinkMessage::from(request.clone());
        message.header.flags = flags;
        message.header.sequence_number = number;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;

        let mut whole = true;
        let mut datagram = Vec::with_capacity(DATAGRAM);
        loop {
            datagram.clear();
            self.socket.recv(&mut datagram, 0)?;
            let mut rest = &datagram[..];
            while let Ok(buffer) = NetlinkBuffer::new_checked(rest) {
                let length = buffer.length() as usize;
                if buffer.sequence_number() == number {
                    whole &= buffer.flags() & NLM_F_DUMP_INTR == 0;
                    match NetlinkMessage::deserialize(rest).map(|message| message.payload) {
                        Ok(NetlinkPayload::InnerMessage(message)) => each(message),
                        // An acknowledgement is an error of 0.
                        Ok(NetlinkPayload::Error(error)) => match error.raw_code() {
                            0 => return Ok(whole),
                            code => return Err(io::Error::from_raw_os_error(-code)),
                        },
                        // A dump that fails says so at its end (`netlink_dump_done`).
                        Ok(NetlinkPayload::Done(done)) => match done.code {
                            0.. => return Ok(whole),
                            code => return Err(io::Error::from_raw_os_error(-code)),
                        },
                        Ok(_) => {}
                        Err(error) => log::debug!("the kernel says what can't be read: {error}"),
                    }
                }
                // Messages start at multiples of 4 bytes (netlink(7)).
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
            }
        }
    }
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

fn errno(error: &io::Error) -> Option<i32> {
    error.raw_os_error()
}

/// No namespace has the id, or it belongs to a user namespace that is not ours to look into. About our
/// own, an error is an error.
fn is_gone(nsid: Nsid, error: &io::Error) -> bool {
    let gone = [libc::EINVAL, libc::ENONET, libc::EACCES, libc::EPERM];
    nsid != Nsid::Own && errno(error).is_some_and(|code| gone.contains(&code))
}

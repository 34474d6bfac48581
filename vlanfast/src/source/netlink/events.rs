//! What changed, and where: one socket that hears the devices and addresses of every namespace with
//! an id (`NETLINK_LISTEN_ALL_NSID`, Linux 4.2, commit 59324cf35aba).

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, IoSliceMut},
    os::fd::{AsRawFd, RawFd},
};

use anyhow::Context;
use nix::{
    cmsg_space,
    errno::Errno,
    sys::socket::{
        ControlMessageOwned, MsgFlags, NetlinkAddr, recvmsg, setsockopt, sockopt::RcvBufForce,
    },
};
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use tokio::io::unix::AsyncFd;

use crate::state::snapshot::Ifindex;

/// Room for the events of some thousand containers that start at once. What finds none is noticed
/// (`ENOBUFS`), and everything is read anew.
const BUFFER: usize = 8 << 20;
/// What is read of an event. One of a device may be longer (`if_nlmsg_size`); its head is enough.
const MESSAGE: usize = 32 << 10;

/// `include/uapi/linux/rtnetlink.h`: groups to listen to.
const GROUPS: [u32; 4] = [
    libc::RTNLGRP_LINK,
    libc::RTNLGRP_IPV4_IFADDR,
    libc::RTNLGRP_IPV6_IFADDR,
    libc::RTNLGRP_NSID,
];

/// What must be read anew. Namespaces go by the kernel's id; `None` is our own.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Dirty {
    /// Everything: events were lost, or nothing was read yet.
    pub all: bool,
    /// Which namespaces there are.
    pub list: bool,
    /// Ids that were given or taken back, in the namespace of the first number. The kernel gives the
    /// lowest that is free, so one that was taken back may stand for another namespace by now.
    pub renumbered: BTreeSet<(Option<i32>, i32)>,
    pub links: BTreeMap<Option<i32>, BTreeSet<Ifindex>>,
}

impl Dirty {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Takes in one datagram: messages of struct nlmsghdr and what follows it.
    fn note(&mut self, nsid: Option<i32>, mut datagram: &[u8]) {
        const HEADER: usize = 16;
        while let Some((length, kind)) = header(datagram) {
            let length = length.max(HEADER).min(datagram.len());
            let body = &datagram[HEADER.min(length)..length];
            match kind {
                libc::RTM_NEWNSID | libc::RTM_DELNSID => {
                    self.list = true;
                    self.renumbered.extend(id(body).map(|id| (nsid, id)));
                }
                libc::RTM_NEWLINK | libc::RTM_DELLINK | libc::RTM_NEWADDR | libc::RTM_DELADDR => {
                    // struct ifinfomsg and struct ifaddrmsg both have the index here.
                    if let Some(index) = body.get(4..).and_then(|rest| rest.first_chunk()) {
                        let index = Ifindex(u32::from_ne_bytes(*index));
                        self.links.entry(nsid).or_default().insert(index);
                    }
                }
                _ => {}
            }
            // Messages start at multiples of 4 bytes (netlink(7)).
            datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        }
    }
}

/// `NETNSA_NSID` of an event about ids, behind a struct rtgenmsg that is padded to 4 bytes.
fn id(body: &[u8]) -> Option<i32> {
    const NETNSA_NSID: u16 = 1;
    let mut attributes = body.get(4..)?;
    loop {
        let length = u16::from_ne_bytes(*attributes.first_chunk()?) as usize;
        let kind = u16::from_ne_bytes(*attributes.get(2..)?.first_chunk()?);
        if kind == NETNSA_NSID {
            return Some(i32::from_ne_bytes(*attributes.get(4..)?.first_chunk()?));
        }
        attributes = attributes.get(length.next_multiple_of(4).max(4)..)?;
    }
}

/// Length and type of the message that a datagram starts with.
fn header(datagram: &[u8]) -> Option<(usize, u16)> {
    let length = u32::from_ne_bytes(*datagram.first_chunk()?);
    let kind = u16::from_ne_bytes(*datagram.get(4..)?.first_chunk()?);
    Some((length as usize, kind))
}

/// The socket.
pub struct Events {
    socket: AsyncFd<Socket>,
    buffer: Vec<u8>,
}

impl Events {
    pub fn listen() -> anyhow::Result<Self> {
        let open = || -> io::Result<Socket> {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind(&SocketAddr::new(0, 0))?;
            socket.set_non_blocking(true)?;
            // Before the groups: an event of another namespace has to be told from one of ours.
            socket.set_listen_all_namespaces(true)?;
            setsockopt(&Borrowed(&socket), RcvBufForce, &BUFFER)?;
            for group in GROUPS {
                socket.add_membership(group)?;
            }
            Ok(socket)
        };
        let socket = open().context("failed to listen to netlink events")?;
        Ok(Self {
            // SAFETY: the socket owns its descriptor, and keeps it open until it is dropped.
            socket: unsafe { AsyncFd::register(socket) }
                .context("failed to wait for netlink events")?,
            buffer: vec![0; MESSAGE],
        })
    }

    /// Waits until there is an event. Cancelled, it loses nothing.
    pub async fn wait(&self) -> io::Result<()> {
        self.socket
            .readable()
            .await
            .map(|mut ready| ready.retain_ready())
    }

    /// Takes in whatever is there.
    pub fn drain(&mut self, dirty: &mut Dirty) -> io::Result<()> {
        loop {
            let received = self.socket.try_io(tokio::io::Interest::READABLE, |socket| {
                receive(socket.as_raw_fd(), &mut self.buffer).map_err(io::Error::from)
            });
            match received {
                Ok((nsid, length)) => dirty.note(nsid, &self.buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => dirty.all = true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// One datagram: of which namespace, and how long it is.
fn receive(socket: RawFd, buffer: &mut [u8]) -> Result<(Option<i32>, usize), Errno> {
    let mut parts = [IoSliceMut::new(buffer)];
    let mut control = cmsg_space!(i32);
    let message = recvmsg::<NetlinkAddr>(
        socket,
        &mut parts,
        Some(&mut control),
        MsgFlags::MSG_DONTWAIT,
    )?;
    let nsid = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::Unknown(unknown)
            if unknown.cmsg_header.cmsg_level == libc::SOL_NETLINK
                && unknown.cmsg_header.cmsg_type == libc::NETLINK_LISTEN_ALL_NSID =>
        {
            unknown
                .data_bytes
                .first_chunk()
                .copied()
                .map(i32::from_ne_bytes)
        }
        _ => None,
    });
    Ok((nsid, message.bytes))
}

/// netlink-sys has `AsRawFd` only.
struct Borrowed<'a>(&'a Socket);

impl std::os::fd::AsFd for Borrowed<'_> {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        // SAFETY: the socket is borrowed for as long, and owns its descriptor.
        unsafe { std::os::fd::BorrowedFd::borrow_raw(self.0.as_raw_fd()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, index: u32) -> Vec<u8> {
        let mut bytes = vec![];
        bytes.extend(34u32.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.resize(20, 0);
        bytes.extend(index.to_ne_bytes());
        bytes.resize(36, 0);
        bytes
    }

    #[test]
    fn every_message_of_a_datagram_is_noted_for_its_namespace() {
        let mut dirty = Dirty::default();
        let datagram = [
            message(libc::RTM_NEWLINK, 7),
            message(libc::RTM_DELADDR, 9),
            message(libc::RTM_NEWROUTE, 11),
        ]
        .concat();
        dirty.note(Some(3), &datagram);
        dirty.note(None, &message(libc::RTM_DELLINK, 7));
        assert_eq!(
            dirty.links[&Some(3)],
            BTreeSet::from([Ifindex(7), Ifindex(9)])
        );
        assert_eq!(dirty.links[&None], BTreeSet::from([Ifindex(7)]));
        assert!(!dirty.list && !dirty.all);
    }

    #[test]
    fn an_id_that_was_taken_back_is_noted() {
        let mut event = 28u32.to_ne_bytes().to_vec();
        event.extend(libc::RTM_DELNSID.to_ne_bytes());
        event.resize(20, 0);
        // NETNSA_CURRENT_NSID, then NETNSA_NSID.
        for (kind, id) in [(5u16, 9i32), (1, 4)] {
            event.extend(8u16.to_ne_bytes());
            event.extend(kind.to_ne_bytes());
            event.extend(id.to_ne_bytes());
        }
        event[0] = event.len() as u8;
        let mut dirty = Dirty::default();
        dirty.note(None, &event);
        assert!(dirty.list);
        assert_eq!(dirty.renumbered, BTreeSet::from([(None, 4)]));
        for length in 0..event.len() {
            Dirty::default().note(None, &event[..length]);
        }
    }

    #[test]
    fn what_is_cut_off_or_lies_about_its_length_ends() {
        let mut dirty = Dirty::default();
        for length in [0u32, 1, 17, u32::MAX] {
            let mut bytes = message(libc::RTM_NEWLINK, 7);
            bytes[..4].copy_from_slice(&length.to_ne_bytes());
            dirty.note(None, &bytes);
            dirty.note(None, &bytes[..15]);
            dirty.note(None, &bytes[..3]);
        }
        assert!(!dirty.all);
    }
}

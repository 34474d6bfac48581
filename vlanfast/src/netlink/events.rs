//! What changed, and where: one socket that hears the devices and addresses of every namespace with
//! an id (`NETLINK_LISTEN_ALL_NSID`, Linux 4.2, commit 59324cf35aba).

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, IoSliceMut},
    os::fd::{AsRawFd, RawFd},
};

use anyhow::Context;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::{
    cmsg_space,
    errno::Errno,
    sys::socket::{
        ControlMessageOwned, MsgFlags, NetlinkAddr, recvmsg, setsockopt, sockopt::RcvBufForce,
    },
};
use tokio::io::{Interest, unix::AsyncFd};

use super::{
    attrs::{half, word},
    decode,
    query::messages,
    request::HEADER,
};
use crate::state::snapshot::Ifindex;

/// Room for the events of some thousand containers that start at once. What finds none is noticed
/// (`ENOBUFS`), and everything is read anew.
const BUFFER: usize = 8 << 20;
/// What is read of an event. One of a device may be longer (`if_nlmsg_size`); its head is enough.
const MESSAGE: usize = 32 << 10;

/// `include/uapi/linux/rtnetlink.h`: groups to listen to.
const GROUPS: [u32; 5] = [
    libc::RTNLGRP_LINK,
    libc::RTNLGRP_TC,
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

/// On which devices of our own namespace something may have happened to a hook: to a qdisc, a filter, or the
/// device itself, of which XDP is a part. tcx says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HookEvents {
    /// On any: events were lost.
    pub all: bool,
    pub devices: BTreeSet<Ifindex>,
}

impl HookEvents {
    pub fn is_empty(&self) -> bool {
        !self.all && self.devices.is_empty()
    }

    pub fn may_be_of(&self, ifindex: Ifindex) -> bool {
        self.all || self.devices.contains(&ifindex)
    }
}

/// What was heard.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Notifications {
    pub dirty: Dirty,
    pub hooks: HookEvents,
    /// Devices of our own namespace that were removed, or moved elsewhere. Their index may be another's by now.
    pub lost: BTreeSet<Ifindex>,
}

impl Notifications {
    /// Events were lost, or can't be read.
    pub const fn lose(&mut self) {
        self.dirty.all = true;
        self.hooks.all = true;
    }

    /// Takes in one datagram, of which there may be more than there was room for.
    fn record(&mut self, nsid: Option<i32>, datagram: &[u8], length: usize) {
        let mut end = 0;
        for message in messages(datagram) {
            let Ok(message) = message else {
                return self.record_cut_off(nsid, &datagram[end..], length - end);
            };
            end += (HEADER + message.body.len()).next_multiple_of(4);
            end = end.min(datagram.len());
            self.record_message(nsid, message.kind, message.body);
        }
        if length > datagram.len() {
            self.lose();
        }
    }

    /// The rest of a datagram, which is no whole message. The kernel puts an event in a datagram of its own, and one
    /// of a device may be long; what says which device it is stands at its beginning.
    fn record_cut_off(&mut self, nsid: Option<i32>, rest: &[u8], length: usize) {
        let declared = word(rest, 0).unwrap_or_default() as usize;
        let is_last = declared > rest.len() && declared.next_multiple_of(4) >= length;
        match (half(rest, 4), rest.get(HEADER..)) {
            (Ok(kind), Some(body)) if is_last && length > rest.len() => {
                self.record_message(nsid, kind, body);
            }
            _ => self.lose(),
        }
    }

    fn record_message(&mut self, nsid: Option<i32>, kind: u16, body: &[u8]) {
        match kind {
            libc::RTM_NEWNSID | libc::RTM_DELNSID => {
                self.dirty.list = true;
                match decode::id(body) {
                    Ok(id) => self.dirty.renumbered.extend(id.map(|id| (nsid, id))),
                    Err(_) => self.lose(),
                }
            }
            libc::RTM_NEWLINK | libc::RTM_DELLINK => {
                self.record_device(nsid, body);
                self.record_hook(nsid, body);
                // With another family than AF_UNSPEC, it has left a bridge and no more.
                if kind == libc::RTM_DELLINK && nsid.is_none() && body.first() == Some(&0) {
                    self.lost.extend(decode::ifindex(body));
                }
            }
            libc::RTM_NEWADDR | libc::RTM_DELADDR => self.record_device(nsid, body),
            libc::RTM_NEWQDISC
            | libc::RTM_DELQDISC
            | libc::RTM_NEWTFILTER
            | libc::RTM_DELTFILTER => self.record_hook(nsid, body),
            _ => {}
        }
    }

    fn record_device(&mut self, nsid: Option<i32>, body: &[u8]) {
        match decode::ifindex(body) {
            Some(ifindex) => {
                self.dirty.links.entry(nsid).or_default().insert(ifindex);
            }
            None => self.lose(),
        }
    }

    fn record_hook(&mut self, nsid: Option<i32>, body: &[u8]) {
        // An event without an id is of our own namespace (`do_one_broadcast`).
        if nsid.is_none() {
            match decode::ifindex(body) {
                Some(ifindex) => self.hooks.devices.extend([ifindex]),
                None => self.hooks.all = true,
            }
        }
    }
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
            setsockopt(&socket, RcvBufForce, &BUFFER)?;
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
    pub fn drain(&mut self, heard: &mut Notifications) -> io::Result<()> {
        loop {
            // Asked of the kernel itself: tokio may not have seen yet that something is there. It has to hear where
            // nothing is, or it would wake us for ever.
            let own = self.socket.get_ref().as_raw_fd();
            let received = match receive(own, &mut self.buffer) {
                Err(Errno::EAGAIN) => self.socket.try_io(Interest::READABLE, |socket| {
                    receive(socket.as_raw_fd(), &mut self.buffer).map_err(io::Error::from)
                }),
                received => received.map_err(io::Error::from),
            };
            match received {
                Ok((nsid, length)) => {
                    let datagram = &self.buffer[..length.min(self.buffer.len())];
                    heard.record(nsid, datagram, length);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => heard.lose(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// One datagram: of which namespace, and how long it is, which may be more than there was room for.
fn receive(socket: RawFd, buffer: &mut [u8]) -> Result<(Option<i32>, usize), Errno> {
    let mut parts = [IoSliceMut::new(buffer)];
    let mut control = cmsg_space!(i32);
    let message = recvmsg::<NetlinkAddr>(
        socket,
        &mut parts,
        Some(&mut control),
        MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC,
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

#[cfg(test)]
mod tests;

//! Receives netlink notifications about devices and addresses of every namespace with an id, over one socket
//! (`NETLINK_LISTEN_ALL_NSID`, Linux 4.2, commit 59324cf35aba).

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

/// The receive buffer has room for the events of some thousand containers that start at once. If it overflows, the
/// kernel reports `ENOBUFS`, and everything is read again.
const BUFFER: usize = 8 << 20;
/// How much of a notification is read. A device notification may be longer (`if_nlmsg_size`); its start is enough.
const MESSAGE: usize = 32 << 10;

/// The multicast groups that are joined (`include/uapi/linux/rtnetlink.h`).
const GROUPS: [u32; 5] = [
    libc::RTNLGRP_LINK,
    libc::RTNLGRP_TC,
    libc::RTNLGRP_IPV4_IFADDR,
    libc::RTNLGRP_IPV6_IFADDR,
    libc::RTNLGRP_NSID,
];

/// The parts of the inventory that must be read again. Namespaces are given by their nsid; `None` is our own.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Dirty {
    /// Everything must be read, because events were lost or nothing was read yet.
    pub all: bool,
    /// The list of namespaces must be read.
    pub list: bool,
    /// Ids (second number) that were assigned or released in a namespace (first number). The kernel assigns the lowest
    /// free id, so a released one may stand for another namespace by now.
    pub renumbered: BTreeSet<(Option<i32>, i32)>,
    pub links: BTreeMap<Option<i32>, BTreeSet<Ifindex>>,
}

/// The devices of our own namespace whose hooks may have changed, by a notification about a qdisc, a filter or the
/// device (which includes XDP). The kernel sends no notification about tcx.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HookEvents {
    /// Any device may have changed, because events were lost.
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

/// The notifications that were received and not processed yet.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Notifications {
    pub dirty: Dirty,
    pub hooks: HookEvents,
    /// Devices of our own namespace that were removed or moved to another one. Their indexes may be reused by now.
    pub lost: BTreeSet<Ifindex>,
}

impl Notifications {
    /// Records that events were lost or could not be decoded.
    pub const fn lose(&mut self) {
        self.dirty.all = true;
        self.hooks.all = true;
    }

    /// Processes one datagram of the given length, which may be truncated.
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

    /// Processes a truncated message at the end of a datagram. The kernel sends each event in its own datagram; a
    /// device event may be long, but its start names the device.
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
                // RTM_DELLINK with another family than AF_UNSPEC means only that the device left a bridge.
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
        // A notification without an nsid comes from our own namespace (`do_one_broadcast`).
        if nsid.is_none() {
            match decode::ifindex(body) {
                Some(ifindex) => self.hooks.devices.extend([ifindex]),
                None => self.hooks.all = true,
            }
        }
    }
}

/// The socket that receives notifications.
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
            // This precedes joining groups, so that every event comes with the nsid of its namespace.
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

    /// Waits for a notification. Safe to cancel.
    pub async fn wait(&self) -> io::Result<()> {
        self.socket
            .readable()
            .await
            .map(|mut ready| ready.retain_ready())
    }

    /// Processes all pending notifications.
    pub fn drain(&mut self, heard: &mut Notifications) -> io::Result<()> {
        loop {
            // The socket is read directly, because tokio may not know yet that it is readable. Once it is empty, tokio
            // has to see the EAGAIN as well, or it would report the socket as readable for ever.
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

/// Receives one datagram. Returns the nsid of its namespace and its length, which may exceed the buffer.
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

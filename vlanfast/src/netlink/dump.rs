//! Reads the devices of any namespace over netlink.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    net::IpAddr,
    os::fd::AsRawFd,
};

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP};
use nix::errno::Errno;

use super::{
    decode,
    decode::{NETNSA_NSID, ifla},
    links,
    query::Netlink,
    request::Request,
};
use crate::{
    netlink::{
        failure::Failure,
        merge::{Missing, NamespaceDump},
    },
    state::snapshot::{Ifindex, Link, Nsid, Silence},
};

/// `NETNSA_PID` and `NETNSA_FD` of `include/uapi/linux/net_namespace.h`, `IFA_TARGET_NETNSID` of `if_addr.h`.
const NETNSA_PID: u16 = 2;
const NETNSA_FD: u16 = 3;
const IFA_TARGET_NETNSID: u16 = 10;

/// The kernel's answer about something that may not exist.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer<T> {
    Found(T),
    /// It does not exist, by the kernel's own answer.
    Gone,
    /// The answer is unclear, for this reason.
    Unclear(String),
}

/// Reads from all namespaces that have an id.
pub struct NamespaceReader {
    netlink: Netlink,
    /// The id of our own namespace in itself, which the kernel uses in messages that refer to it.
    own: Option<i32>,
}

impl NamespaceReader {
    pub async fn open(netlink: Netlink) -> anyhow::Result<Self> {
        let mut reader = Self { netlink, own: None };
        let own = (NETNSA_PID, std::process::id());
        // Otherwise the kernel would assign the id in the first dump that refers to our namespace, and we would not
        // know it.
        reader.give_id(own).await?;
        reader.own = reader.id(own).await?;
        Ok(reader)
    }

    /// Converts an id from a message of the kernel.
    pub fn nsid(&self, id: Option<i32>) -> Nsid {
        match id {
            Some(id) if Some(id) != self.own => Nsid::Other(id),
            _ => Nsid::Own,
        }
    }

    /// Gives an id to the namespace of a file, if it has none.
    pub async fn give_id_to(&self, file: &File) -> anyhow::Result<()> {
        self.give_id((NETNSA_FD, file.as_raw_fd() as u32)).await
    }

    async fn give_id(&self, (kind, namespace): (u16, u32)) -> anyhow::Result<()> {
        let request = Request::ids(libc::RTM_NEWNSID, NLM_F_ACK)
            .with(NETNSA_NSID, &(-1i32).to_ne_bytes())
            .with(kind, &namespace.to_ne_bytes());
        match self.netlink.ask(&request, |_| {}).await {
            Ok(_) => Ok(()),
            // The namespace has an id already, or it has just been removed.
            Err(Failure::Refused(Errno::EEXIST | Errno::EINVAL, _)) => Ok(()),
            Err(failure) => Err(failure.of("give a namespace an id")),
        }
    }

    async fn id(&self, (kind, namespace): (u16, u32)) -> anyhow::Result<Option<i32>> {
        const ASKED: &str = "ask for the id of our namespace";
        let request =
            Request::ids(libc::RTM_GETNSID, NLM_F_ACK).with(kind, &namespace.to_ne_bytes());
        let mut id = None;
        let asked = self.netlink.ask(&request, |message| {
            if message.kind == libc::RTM_NEWNSID {
                id = Some(decode::id(message.body));
            }
        });
        asked.await.map_err(|failure| failure.of(ASKED))?;
        match id {
            Some(Ok(id)) => Ok(id),
            Some(Err(malformed)) => Err(Failure::Garbled(malformed.0).of(ASKED)),
            None => Err(Failure::Garbled("it has no id").of(ASKED)),
        }
    }

    /// Lists the other namespaces that have an id, and returns whether the list is complete.
    pub async fn namespaces(&self) -> anyhow::Result<(BTreeSet<Nsid>, bool)> {
        let request = Request::ids(libc::RTM_GETNSID, NLM_F_DUMP);
        let (mut all, mut readable) = (BTreeSet::new(), true);
        let asked = self.netlink.ask(&request, |message| {
            match decode::id(message.body) {
                Ok(id) if message.kind == libc::RTM_NEWNSID => all.extend(id),
                _ => readable = false,
            };
        });
        let asked = asked.await;
        let whole = asked.map_err(|failure| failure.of("list the network namespaces"))?;
        let namespaces = all.into_iter().map(|id| self.nsid(Some(id)));
        let others = namespaces.filter(|nsid| *nsid != Nsid::Own).collect();
        Ok((others, whole && readable))
    }

    /// Reads all devices of a namespace.
    pub async fn namespace(&self, nsid: Nsid) -> anyhow::Result<Answer<NamespaceDump>> {
        let read = self.dump(nsid).await;
        let read = match read {
            // If something changed during the dump, one more attempt usually succeeds.
            Ok(read) if !read.is_whole() => self.dump(nsid).await,
            read => read,
        };
        self.answer(nsid, read, "list the devices of a network namespace")
            .await
    }

    async fn dump(&self, nsid: Nsid) -> Result<NamespaceDump, Failure> {
        let request = Request::links(libc::RTM_GETLINK, NLM_F_DUMP, Ifindex(0))
            .with(ifla::EXT_MASK, &links::SKIP_STATS.to_ne_bytes());
        let request = of(nsid, ifla::TARGET_NETNSID, request);
        let mut read = NamespaceDump::default();
        let asked = self.netlink.ask(&request, |message| {
            read.link(nsid, message, |id| self.nsid(Some(id)));
        });
        let whole = asked.await?;
        read.links.record_answer(whole);
        if nsid == Nsid::Own {
            let all = silence_of_all();
            for link in read.namespace.links.values_mut() {
                link.silence = link.silence.max(all);
            }
        }
        self.addresses(nsid, Ifindex(0), &mut read).await?;
        Ok(read)
    }

    /// Reads a device with its addresses, and returns what may be missing of them.
    pub async fn link(
        &self,
        nsid: Nsid,
        ifindex: Ifindex,
    ) -> anyhow::Result<Answer<(Link, Vec<IpAddr>, Missing)>> {
        let asked = self.device(nsid, ifindex).await;
        self.answer(nsid, asked, "ask for a device").await
    }

    async fn device(
        &self,
        nsid: Nsid,
        ifindex: Ifindex,
    ) -> Result<(Link, Vec<IpAddr>, Missing), Failure> {
        let request = of(nsid, ifla::TARGET_NETNSID, links::about(ifindex));
        let device = self.netlink.one(&request).await?;
        let mut read = NamespaceDump::default();
        self.addresses(nsid, ifindex, &mut read).await?;
        let addresses = read.namespace.addresses.remove(&ifindex);
        let mut link = device.link(nsid, |id| self.nsid(Some(id)));
        if nsid == Nsid::Own {
            link.silence = link.silence.max(silence_of_all());
        }
        Ok((link, addresses.unwrap_or_default(), read.addresses))
    }

    /// Reads all addresses, or those of one device.
    async fn addresses(
        &self,
        nsid: Nsid,
        only: Ifindex,
        read: &mut NamespaceDump,
    ) -> Result<(), Failure> {
        let request = Request::addresses(libc::RTM_GETADDR, NLM_F_DUMP, only);
        let request = of(nsid, IFA_TARGET_NETNSID, request);
        let asked = self.netlink.ask(&request, |message| read.address(message));
        let whole = asked.await?;
        read.addresses.record_answer(whole);
        Ok(())
    }

    /// Interprets an answer about a namespace or one of its devices. A missing answer is an error, and so is a refusal
    /// that concerns our own namespace.
    async fn answer<T>(
        &self,
        nsid: Nsid,
        asked: Result<T, Failure>,
        what: &str,
    ) -> anyhow::Result<Answer<T>> {
        Ok(match asked {
            Ok(answer) => Answer::Found(answer),
            Err(Failure::Refused(Errno::ENODEV, _)) => Answer::Gone,
            Err(failure @ Failure::Refused(..)) => match nsid {
                Nsid::Own => return Err(failure.of(what)),
                Nsid::Other(id) if self.is_gone(id).await? => Answer::Gone,
                Nsid::Other(_) => unclear(failure, what),
            },
            Err(failure @ Failure::Garbled(_)) => unclear(failure, what),
            // The kernel had no memory for its answer.
            Err(Failure::Socket(error)) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                unclear(Failure::Socket(error), what)
            }
            Err(failure) => return Err(failure.of(what)),
        })
    }

    /// Whether no namespace has this id any more.
    async fn is_gone(&self, id: i32) -> anyhow::Result<bool> {
        let request =
            Request::ids(libc::RTM_GETNSID, NLM_F_ACK).with(NETNSA_NSID, &id.to_ne_bytes());
        match self.netlink.ask(&request, |_| {}).await {
            Ok(_) => Ok(false),
            Err(Failure::Refused(Errno::ENOENT, _)) => Ok(true),
            Err(failure) => Err(failure.of("ask whether a network namespace exists")),
        }
    }
}

/// Reads the setting of `arp_ignore` for all devices of our own namespace. Netlink does not have it, and that of
/// another namespace cannot be read.
fn silence_of_all() -> Silence {
    let all = fs::read_to_string("/proc/sys/net/ipv4/conf/all/arp_ignore");
    match all.is_ok_and(|all| all.trim().parse() == Ok(decode::NEVER)) {
        true => Silence::Ipv4,
        false => Silence::None,
    }
}

fn unclear<T>(failure: Failure, what: &str) -> Answer<T> {
    Answer::Unclear(format!("{:#}", failure.of(what)))
}

/// Adds the namespace to a request.
fn of(nsid: Nsid, attribute: u16, request: Request) -> Request {
    match nsid {
        Nsid::Own => request,
        Nsid::Other(id) => request.with(attribute, &id.to_ne_bytes()),
    }
}

#[cfg(test)]
mod tests;

//! Reads and changes the queueing disciplines and TC filters of a device, which is given by its index. The requests are
//! the same as those of aya and `tc`.

mod decode;

use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_ECHO, NLM_F_EXCL};
use nix::errno::Errno;
use vlanfast_common::Direction;

pub use self::decode::{Filter, Program, Qdisc, filter, qdisc};
use self::decode::{TCA_BPF_FLAGS, TCA_BPF_NAME, TCA_KIND, TCA_OPTIONS};
use super::{query::Netlink, request::Request};
use crate::{netlink::failure::Failure, state::snapshot::Ifindex};

/// Handles of `include/uapi/linux/pkt_sched.h`: the parent of a clsact or ingress qdisc, and the two hooks of a clsact
/// qdisc.
const CLSACT: u32 = 0xffff_0000;
const CLSACT_PARENT: u32 = 0xffff_fff1;
const INGRESS: u32 = CLSACT | 0xfff2;
const EGRESS: u32 = CLSACT | 0xfff3;

/// `include/uapi/linux/pkt_cls.h`.
const TCA_BPF_FD: u16 = 6;
const TCA_BPF_FLAG_ACT_DIRECT: u32 = 1;

/// The filters at a hook, in the order in which they run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters {
    pub list: Vec<Filter>,
    /// The list may be incomplete or wrong, because something could not be read.
    pub incomplete: bool,
    /// The hook is in use, even if it has no filter.
    is_used: bool,
}

impl Filters {
    /// Whether the hook is certainly unused.
    pub const fn are_none(&self) -> bool {
        self.list.is_empty() && !self.incomplete && !self.is_used
    }
}

/// The reasons why a clsact qdisc cannot be added.
#[derive(Debug, thiserror::Error)]
pub enum NoClsact {
    /// `EEXIST`: the device already has an ingress or another clsact qdisc.
    #[error("the device already has an ingress or clsact qdisc")]
    Taken,
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

/// Identifies a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FilterSlot {
    pub ifindex: Ifindex,
    pub hook: Direction,
    pub priority: u16,
    pub handle: u32,
}

impl Netlink {
    /// Lists the qdiscs of a device. It is an error if one of them cannot be read.
    pub async fn qdiscs(&self, ifindex: Ifindex) -> anyhow::Result<Vec<Qdisc>> {
        let asked = format!("list the qdiscs of device {}", ifindex.0);
        let request = message(libc::RTM_GETQDISC, NLM_F_DUMP, [ifindex.0, 0, 0, 0]);
        let (mut found, mut wrong) = (vec![], None);
        // The kernel answers with the qdiscs of all devices.
        let answered = self.ask(&request, |message| match qdisc(message.body) {
            _ if message.kind != libc::RTM_NEWQDISC => wrong = Some("it has an unexpected type"),
            Ok((index, qdisc)) if index == ifindex => found.push(qdisc),
            Ok(_) => {}
            Err(error) if error.ifindex.is_some_and(|index| index != ifindex) => {}
            Err(error) => wrong = Some(error.why),
        });
        let whole = answered.await.map_err(|failure| failure.of(&asked))?;
        match wrong {
            Some(why) => Err(Failure::Garbled(why).of(&asked)),
            None if whole => Ok(found),
            None => Err(Failure::Garbled("it is incomplete").of(&asked)),
        }
    }

    /// Whether the device has a clsact qdisc.
    pub async fn has_clsact(&self, ifindex: Ifindex) -> anyhow::Result<bool> {
        let qdiscs = self.qdiscs(ifindex).await?;
        Ok(qdiscs
            .iter()
            .any(|qdisc| qdisc.kind.as_bytes() == b"clsact"))
    }

    /// Adds a clsact qdisc.
    pub async fn add_clsact(&self, ifindex: Ifindex) -> Result<(), NoClsact> {
        let flags = NLM_F_ACK | NLM_F_EXCL | NLM_F_CREATE;
        let fields = [ifindex.0, CLSACT, CLSACT_PARENT, 0];
        let request = message(libc::RTM_NEWQDISC, flags, fields).with(TCA_KIND, b"clsact\0");
        match self.ask(&request, |_| {}).await {
            Ok(_) => Ok(()),
            Err(Failure::Refused(Errno::EEXIST, _)) => Err(NoClsact::Taken),
            Err(failure) => {
                let what = format!("add a clsact qdisc to device {}", ifindex.0);
                Err(NoClsact::Other(failure.of(&what)))
            }
        }
    }

    /// Removes the clsact qdisc with all its filters.
    pub async fn remove_clsact(&self, ifindex: Ifindex) -> anyhow::Result<()> {
        let fields = [ifindex.0, CLSACT, CLSACT_PARENT, 0];
        let request = message(libc::RTM_DELQDISC, NLM_F_ACK, fields).with(TCA_KIND, b"clsact\0");
        let removed = self.ask(&request, |_| {}).await;
        let what = || format!("remove the clsact qdisc of device {}", ifindex.0);
        removed.map(drop).map_err(|failure| failure.of(&what()))
    }

    /// Removes the clsact qdisc, unless it has or may have a filter.
    pub async fn remove_clsact_if_empty(&self, ifindex: Ifindex) -> anyhow::Result<()> {
        for hook in [Direction::Rx, Direction::Tx] {
            if !self.filters(ifindex, hook).await?.are_none() {
                return Ok(());
            }
        }
        self.remove_clsact(ifindex).await
    }

    /// Lists the filters at a clsact hook in the order in which they run.
    pub async fn filters(&self, ifindex: Ifindex, hook: Direction) -> anyhow::Result<Filters> {
        let fields = [ifindex.0, 0, parent(hook), 0];
        let request = message(libc::RTM_GETTFILTER, NLM_F_DUMP, fields);
        let mut filters = Filters::default();
        let answered = self.ask(&request, |message| {
            filters.is_used = true;
            match filter(message.body) {
                _ if message.kind != libc::RTM_NEWTFILTER => filters.incomplete = true,
                Ok(Some(filter)) => filters.list.push(filter),
                // The message describes a classifier, and its filters follow.
                Ok(None) => {}
                Err(_) => filters.incomplete = true,
            }
        });
        match answered.await {
            Ok(whole) => {
                filters.incomplete |= !whole;
                Ok(filters)
            }
            // The device has no clsact qdisc.
            Err(Failure::Refused(Errno::EINVAL | Errno::ENOENT, _)) => Ok(Filters::default()),
            Err(failure) => {
                let what = format!("list the TC filters of device {}", ifindex.0);
                Err(failure.of(&what))
            }
        }
    }

    /// Adds a BPF filter in direct-action mode. The kernel chooses a priority before all others.
    pub async fn add_filter(
        &self,
        ifindex: Ifindex,
        hook: Direction,
        program: BorrowedFd<'_>,
        name: &str,
    ) -> anyhow::Result<FilterSlot> {
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        let slot = FilterSlot {
            ifindex,
            hook,
            priority: 0,
            handle: 0,
        };
        self.put_filter(slot, flags, program, name).await
    }

    /// Replaces the program of a filter. Every packet meets either the old or the new program.
    pub async fn replace_filter(
        &self,
        slot: FilterSlot,
        program: BorrowedFd<'_>,
        name: &str,
    ) -> anyhow::Result<()> {
        self.put_filter(slot, 0, program, name).await.map(drop)
    }

    async fn put_filter(
        &self,
        slot: FilterSlot,
        flags: u16,
        program: BorrowedFd<'_>,
        name: &str,
    ) -> anyhow::Result<FilterSlot> {
        let asked = format!("put a TC filter on device {}", slot.ifindex.0);
        let name = [name.as_bytes(), &[0]].concat();
        // The kernel echoes the filter, with its priority and handle.
        let request = of_filter(libc::RTM_NEWTFILTER, flags | NLM_F_ACK | NLM_F_ECHO, slot)
            .with(TCA_KIND, b"bpf\0")
            .with_nested(
                TCA_OPTIONS,
                &[
                    (TCA_BPF_FD, &program.as_raw_fd().to_ne_bytes()),
                    (TCA_BPF_NAME, &name),
                    (TCA_BPF_FLAGS, &TCA_BPF_FLAG_ACT_DIRECT.to_ne_bytes()),
                ],
            );
        let mut echo = None;
        let answered = self.ask(&request, |message| {
            if message.kind == libc::RTM_NEWTFILTER {
                echo = Some(decode::slot(message.body));
            }
        });
        answered.await.map_err(|failure| failure.of(&asked))?;
        match echo {
            Some(Ok((priority, handle))) => Ok(FilterSlot {
                priority,
                handle,
                ..slot
            }),
            Some(Err(malformed)) => Err(Failure::Garbled(malformed.0).of(&asked)),
            None => Err(Failure::Garbled("it does not identify the filter").of(&asked)),
        }
    }

    /// Removes a filter. It is not an error if the filter is gone already.
    pub async fn remove_filter(&self, slot: FilterSlot) -> anyhow::Result<()> {
        let request = of_filter(libc::RTM_DELTFILTER, NLM_F_ACK, slot);
        match self.ask(&request, |_| {}).await {
            Ok(_) => Ok(()),
            Err(Failure::Refused(Errno::ENOENT | Errno::ENODEV, _)) => Ok(()),
            Err(failure) => {
                let what = format!("remove a TC filter of device {}", slot.ifindex.0);
                Err(failure.of(&what))
            }
        }
    }
}

const fn parent(hook: Direction) -> u32 {
    match hook {
        Direction::Rx => INGRESS,
        Direction::Tx => EGRESS,
    }
}

/// Builds a request with `struct tcmsg`: the device, then handle, parent and info.
fn message(kind: u16, flags: u16, fields: [u32; 4]) -> Request {
    let mut header = [0; 20];
    for (to, from) in header[4..].chunks_mut(4).zip(fields) {
        to.copy_from_slice(&from.to_ne_bytes());
    }
    Request::new(kind, flags, &header)
}

/// Builds a request about a filter for all protocols.
fn of_filter(kind: u16, flags: u16, slot: FilterSlot) -> Request {
    let protocol = (libc::ETH_P_ALL as u16).to_be();
    let info = u32::from(slot.priority) << 16 | u32::from(protocol);
    let FilterSlot {
        ifindex,
        hook,
        handle,
        ..
    } = slot;
    message(kind, flags, [ifindex.0, handle, parent(hook), info])
}

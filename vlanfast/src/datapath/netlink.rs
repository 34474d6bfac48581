//! What the kernel says over rtnetlink, asked anew each time.

use anyhow::Context;
use futures_util::TryStreamExt;
use rtnetlink::{
    Handle,
    packet_route::{
        link::LinkMessage,
        tc::{TcAttribute, TcFilterBpfOption, TcHandle, TcMessage, TcOption},
    },
};
use vlanfast_common::Direction;

use crate::link::name;

/// A connection, alive as long as it is kept.
pub struct Netlink {
    pub handle: Handle,
}

/// A `cls_bpf` filter, as much of it as it takes to find it again.
pub struct Filter {
    pub program_id: u32,
    pub priority: u16,
    pub handle: u32,
}

impl Netlink {
    pub fn connect() -> anyhow::Result<Self> {
        let (connection, handle, _) =
            rtnetlink::new_connection().context("failed to open a netlink socket")?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// A device of this namespace, or `None`.
    pub async fn link(&self, name: &str) -> anyhow::Result<Option<LinkMessage>> {
        let request = self.handle.link().get().match_name(name).execute();
        match request.try_collect::<Vec<_>>().await {
            Ok(links) => Ok(links.into_iter().next()),
            Err(rtnetlink::Error::NetlinkError(error)) if is_absent(error.raw_code()) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("failed to ask for device {name}")),
        }
    }

    /// The name of a device, by its index.
    pub async fn name(&self, ifindex: u32) -> anyhow::Result<Option<String>> {
        let request = self.handle.link().get().match_index(ifindex).execute();
        match request.try_collect::<Vec<_>>().await {
            Ok(links) => Ok(links.first().map(name)),
            Err(rtnetlink::Error::NetlinkError(error)) if is_absent(error.raw_code()) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("failed to ask for device {ifindex}")),
        }
    }

    /// Whether the device has a clsact qdisc.
    pub async fn has_clsact(&self, ifindex: u32) -> anyhow::Result<bool> {
        let qdiscs: Vec<_> = self
            .handle
            .qdisc()
            .get()
            .index(ifindex as i32)
            .execute()
            .try_collect()
            .await
            .context("failed to list the qdiscs")?;
        // Old kernels answer with the qdiscs of every device.
        Ok(qdiscs
            .iter()
            .any(|qdisc| qdisc.header.index == ifindex as i32 && kind(qdisc) == Some("clsact")))
    }

    /// The BPF filters at a clsact hook.
    pub async fn bpf_filters(&self, ifindex: u32, hook: Direction) -> anyhow::Result<Vec<Filter>> {
        Ok(self
            .filters(ifindex, hook)
            .await?
            .iter()
            .filter_map(bpf_filter)
            .collect())
    }

    /// Removes the clsact qdisc, unless someone's filter is still in it.
    pub async fn remove_clsact_if_empty(&self, ifindex: u32) -> anyhow::Result<()> {
        for hook in [Direction::Rx, Direction::Tx] {
            if !self.filters(ifindex, hook).await?.is_empty() {
                return Ok(());
            }
        }
        let mut request = self.handle.qdisc().del(ifindex as i32);
        let message = request.message_mut();
        message.header.parent = TcHandle::CLSACT;
        message.header.handle = TcHandle {
            major: 0xffff,
            minor: 0,
        };
        message.attributes.push(TcAttribute::Kind("clsact".into()));
        request
            .execute()
            .await
            .context("failed to remove the clsact qdisc")
    }

    async fn filters(&self, ifindex: u32, hook: Direction) -> anyhow::Result<Vec<TcMessage>> {
        let mut handle = self.handle.traffic_filter(ifindex as i32);
        let request = match hook {
            Direction::Rx => handle.get().ingress(),
            Direction::Tx => handle.get().egress(),
        };
        match request.execute().try_collect().await {
            Ok(filters) => Ok(filters),
            // There is no clsact to hold any.
            Err(rtnetlink::Error::NetlinkError(error))
                if [libc::EINVAL, libc::ENOENT].contains(&-error.raw_code()) =>
            {
                Ok(Vec::new())
            }
            Err(error) => Err(error).context("failed to list the TC filters"),
        }
    }
}

fn kind(message: &TcMessage) -> Option<&str> {
    message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            TcAttribute::Kind(kind) => Some(kind.as_str()),
            _ => None,
        })
}

fn bpf_filter(message: &TcMessage) -> Option<Filter> {
    let program_id = message
        .attributes
        .iter()
        .filter_map(|attribute| match attribute {
            TcAttribute::Options(options) => Some(options),
            _ => None,
        })
        .flatten()
        .find_map(|option| match option {
            TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => Some(*id),
            _ => None,
        })?;
    Some(Filter {
        program_id,
        priority: (message.header.info >> 16) as u16,
        handle: message.header.handle.into(),
    })
}

/// No such device; or no such name, because it is longer than any (`IFNAMSIZ`).
fn is_absent(code: i32) -> bool {
    [libc::ENODEV, libc::ERANGE].contains(&-code)
}

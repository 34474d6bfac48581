//! The clsact qdisc, which TC programs need before Linux 6.6.

use crate::{
    error::Error,
    hooks::device::Trunk,
    netlink::{Netlink, tc::NoClsact},
    state::snapshot::Ifindex,
};

/// Whether a clsact qdisc has to be added. An ingress qdisc takes the same place; it belongs to somebody else, is left
/// alone, and makes this an error.
pub async fn lacks_clsact(netlink: &Netlink, trunk: &Trunk) -> anyhow::Result<bool> {
    let qdiscs = netlink.qdiscs(Ifindex(trunk.ifindex)).await?;
    let has = |kind: &[u8]| qdiscs.iter().any(|qdisc| qdisc.kind.as_bytes() == kind);
    match (has(b"clsact"), has(b"ingress")) {
        (true, _) => Ok(false),
        (false, false) => Ok(true),
        (false, true) => Err(occupied(trunk)),
    }
}

/// Adds the clsact qdisc. One that somebody else adds at the same moment is as good.
pub async fn add_clsact(netlink: &Netlink, trunk: &Trunk) -> anyhow::Result<()> {
    match netlink.add_clsact(Ifindex(trunk.ifindex)).await {
        Ok(()) => Ok(()),
        // Somebody has added it since we looked.
        Err(NoClsact::Taken) if !lacks_clsact(netlink, trunk).await? => Ok(()),
        Err(NoClsact::Taken) => Err(occupied(trunk)),
        Err(NoClsact::Other(error)) => Err(error),
    }
}

fn occupied(trunk: &Trunk) -> anyhow::Error {
    let trunk = trunk.name.to_string();
    Error::IngressQdisc { trunk }.into()
}

//! The report that the reconciler publishes after each round. Metrics are made from it and the counters alone.

use std::{collections::BTreeMap, fmt, sync::Arc};

use vlanfast_common::{EndpointKey, Policy, SourceStatus, Vid};

use crate::state::{claims::Conflict, listeners::Listener, name::Name, names::Names, plan::Over};

/// The result of a round.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    pub trunk: String,
    /// The VLANs for which the host has a device, with the device's name; VID 0 is the trunk.
    pub parents: Arc<BTreeMap<Vid, Name>>,
    /// The endpoints in the map that are macvlans or macvtaps, with their names.
    pub endpoints: Arc<BTreeMap<EndpointKey, Names>>,
    pub maps: Vec<MapFill>,
    /// The status of each source, indexed by `vlanfast_common::Source`.
    pub sources: [SourceStatus; 2],
    pub hooks: Vec<HookState>,
    /// The policy that the programs follow.
    pub policy: Policy,
    /// The VLANs from which vlanfast backs off, with the reasons; VID 0 is untagged traffic.
    pub listeners: Arc<BTreeMap<Vid, Vec<Listener>>>,
    /// The namespaces that exceed their quota.
    pub left_out: Arc<Vec<LeftOut>>,
    /// The addresses of endpoints that are also claimed on the wire.
    pub conflicts: Vec<Conflict>,
}

/// A namespace that exceeds its quota, and what is left out of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// The number of the namespace in `ENDPOINTS`.
    pub nsid: i32,
    pub container: Option<String>,
    pub over: Over,
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            nsid,
            container,
            over,
        } = self;
        write!(f, "network namespace {nsid}")?;
        if let Some(container) = container {
            write!(f, " (container {container})")?;
        }
        write!(
            f,
            " exceeds its quota: {} endpoints and {} addresses of it are left out, and their frames take the kernel's \
             own path; if it needs them all, attach with a larger --max-endpoints-per-namespace or \
             --max-addresses-per-endpoint",
            over.endpoints, over.addresses
        )
    }
}

/// A hook of the trunk, as of the last check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookState {
    /// The name of the hook, `ingress` or `egress`.
    pub hook: &'static str,
    /// How our program is attached, or was until it was removed: `tcx`, `xdp-native`, …
    pub mode: &'static str,
    /// The reason for the mode at ingress; empty at egress.
    pub reason: &'static str,
    /// Whether our program is attached.
    pub attached: bool,
    /// Descriptions of other programs and filters that run before ours. Frames that they drop or redirect are not
    /// counted, and vlanfast makes no decision about them.
    pub preceded_by: Vec<String>,
}

/// The fill level of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct MapFill {
    pub map: &'static str,
    pub entries: u32,
    pub capacity: u32,
    /// The number of entries for which the map has no room.
    pub left_out: u32,
}

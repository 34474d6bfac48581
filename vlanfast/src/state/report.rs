//! The report that the reconciler publishes after each round. Metrics need nothing else beside the counters.

use std::{collections::BTreeMap, fmt, sync::Arc};

use vlanfast_common::{EndpointKey, Policy, SourceStatus, Vid};

use crate::state::{claims::Conflict, listeners::Listener, name::Name, names::Names, plan::Over};

/// One round's result.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    pub trunk: String,
    /// The VLANs that the host has a device for, with that device's name; VID 0 is the trunk.
    pub parents: Arc<BTreeMap<Vid, Name>>,
    /// The macvlans and macvtaps whose entries are in the map, with their names.
    pub endpoints: Arc<BTreeMap<EndpointKey, Names>>,
    pub maps: Vec<MapFill>,
    /// By `vlanfast_common::Source`.
    pub sources: [SourceStatus; 2],
    pub hooks: Vec<HookState>,
    /// What the programs were told to do.
    pub policy: Policy,
    /// The VLANs that are left alone, and why; VID 0 is untagged traffic.
    pub listeners: Arc<BTreeMap<Vid, Vec<Listener>>>,
    /// The namespaces that have more than their share.
    pub left_out: Arc<Vec<LeftOut>>,
    /// The addresses of receivers that somebody on the wire claims.
    pub conflicts: Vec<Conflict>,
}

/// A namespace that has more than its share, and what is left out of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// As `ENDPOINTS` has it.
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
            " has more than its share: {} endpoints and {} addresses of it are left out, and take the kernel's own \
             path; if that is meant to be so, attach with larger --max-endpoints-per-namespace and \
             --max-addresses-per-endpoint",
            over.endpoints, over.addresses
        )
    }
}

/// A hook of the trunk, as it was when somebody looked last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookState {
    /// `ingress` or `egress`.
    pub hook: &'static str,
    /// `tcx`, `xdp-native`, …: how our program is attached, or was until somebody took it off.
    pub mode: &'static str,
    /// Of ingress, why in that mode; else empty.
    pub reason: &'static str,
    /// Our program is there.
    pub attached: bool,
    /// Other people's programs and filters that run before ours, each in words. What they keep to themselves
    /// is neither counted nor decided about.
    pub preceded_by: Vec<String>,
}

/// How full a map is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct MapFill {
    pub map: &'static str,
    pub entries: u32,
    pub capacity: u32,
    /// Entries that found no room.
    pub left_out: u32,
}

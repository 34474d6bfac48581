//! What the reconciler tells the rest of the program after each round: all that metrics need beside
//! the counters.

use std::{collections::BTreeMap, sync::Arc};

use vlanfast_common::{EndpointKey, SourceStatus, Vid};

use super::names::Names;

/// One round's result.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Published {
    pub trunk: String,
    /// The VLANs that the host has a device for, with that device's name; VID 0 is the trunk.
    pub parents: Arc<BTreeMap<Vid, String>>,
    /// The macvlans and macvtaps whose entries are in the map, with their names.
    pub endpoints: Arc<BTreeMap<EndpointKey, Names>>,
    pub maps: Vec<MapFill>,
    /// By `vlanfast_common::Source`.
    pub sources: [SourceStatus; 2],
    pub hooks: Vec<Hook>,
}

/// A hook that is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    /// `ingress` or `egress`.
    pub hook: &'static str,
    /// `tcx`, `xdp-native`, …
    pub mode: &'static str,
    /// Of ingress, why in that mode; else empty.
    pub reason: &'static str,
}

/// How full a map is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapFill {
    pub map: &'static str,
    pub entries: u32,
    pub capacity: u32,
    /// Entries that found no room.
    pub left_out: u32,
}

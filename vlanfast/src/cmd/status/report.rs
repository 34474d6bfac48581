//! The report on one trunk: the shape of `status --json`.

use serde::Serialize;

use crate::{
    cmd::status::{policy::PolicyRow, vlans::VlanReport},
    pins::Holder,
    state::report::MapFill,
};

/// An attached trunk.
#[derive(Serialize)]
pub struct StatusReport {
    pub trunk: String,
    pub ifindex: u32,
    pub hooks: Vec<HookReport>,
    /// The hooks that somebody took our program off.
    pub missing: Vec<&'static str>,
    pub ingress: IngressReport,
    /// `alive`; or `expired` or `stopped`, and then every frame is passed.
    pub heartbeat: &'static str,
    /// The process that is attached; null if there is none, or if it is in another PID namespace.
    pub pid: Option<i32>,
    #[serde(skip)]
    pub holder: Option<Holder>,
    pub policy: PolicyRow,
    /// Where something that is switched on does not work as one would expect.
    pub warnings: Vec<String>,
    pub vlans: Vec<VlanReport>,
    pub maps: Vec<MapFill>,
    pub sources: Vec<SourceReport>,
    pub ignored: Ignored,
}

/// What is printed in place of a [`StatusReport`] if there is none.
#[derive(Serialize)]
#[serde(untagged)]
pub enum Unavailable {
    /// A process is filling the maps for the first time; nothing is attached yet.
    Starting {
        trunk: String,
        heartbeat: &'static str,
        pid: Option<i32>,
    },
    Failed {
        trunk: String,
        error: String,
    },
}

/// A hook with our program.
#[derive(Serialize)]
pub struct HookReport {
    pub hook: &'static str,
    pub kind: &'static str,
    pub pinned: bool,
    /// The programs and filters of others that run before ours.
    pub preceded_by: Vec<String>,
}

/// How ingress is read.
#[derive(Serialize)]
pub struct IngressReport {
    pub chosen: &'static str,
    pub reason: String,
    /// Whether vlanfast turned `rx-vlan-offload` off. Detaching turns it on again.
    pub managed_offload: bool,
}

/// A source of state.
#[derive(Serialize)]
pub struct SourceReport {
    pub source: &'static str,
    pub state: &'static str,
    /// The time since it was last read; null for never.
    pub age_seconds: Option<u64>,
}

/// Devices on the trunk that vlanfast does not support.
#[derive(Serialize)]
pub struct Ignored {
    /// 802.1ad devices.
    pub service_parents: u32,
    /// Devices on more than one tag.
    pub stacked: u32,
}

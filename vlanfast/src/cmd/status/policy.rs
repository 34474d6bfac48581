//! The policy in `status`.

use serde::Serialize;
use vlanfast_common::{Policy, Shed, Shortcut};

/// What the programs do as long as the heartbeat is alive.
#[derive(Serialize)]
pub struct PolicyRow {
    pub steer: bool,
    /// Frames per second per VLAN; 0 is no limit.
    pub storm_limit: u32,
    /// Frames per second per VLAN; 0 is no limit.
    pub group_limit: u32,
    pub shed: &'static str,
    pub dry_run: bool,
    pub host_access: bool,
    pub shortcut: &'static str,
    /// After how many seconds the router is probed again, 0 for never; null unless flows are learnt.
    pub shortcut_refresh: Option<u32>,
    pub deliver: &'static str,
}

impl From<Policy> for PolicyRow {
    fn from(policy: Policy) -> Self {
        let shortcut = Shortcut::from_number(policy.shortcut);
        Self {
            steer: policy.steer != 0,
            storm_limit: policy.storm_limit,
            group_limit: policy.group_limit,
            shed: Shed::from_number(policy.shed).name(),
            dry_run: policy.dry_run != 0,
            host_access: policy.host_access != 0,
            shortcut: shortcut.name(),
            shortcut_refresh: (shortcut == Shortcut::Learned).then_some(policy.shortcut_refresh),
            deliver: policy.deliver_name(),
        }
    }
}

//! Encodes the state of vlanfast itself: whether it is working, and its settings.

use std::{collections::BTreeMap, fmt};

use vlanfast_common::{Settings, Shed, Shortcut, Source, SourceState, Vid};

use super::{Output, Scrape};
use crate::state::{
    listeners::Listener,
    report::{HookState, Report},
};

impl Scrape {
    pub(super) fn sources(&self, out: &mut Output) -> fmt::Result {
        let sources = || {
            let states = Source::ALL.map(|source| {
                let status = self.published.sources[source as usize];
                let state = SourceState::from_number(status.state);
                (source, state, status.last_success)
            });
            let switched_on = states
                .into_iter()
                .filter(|(_, state, _)| *state != Some(SourceState::Off));
            switched_on.map(|(source, state, last)| ([("source", source.name())], state, last))
        };
        let up =
            sources().map(|(labels, state, _)| (labels, u64::from(state == Some(SourceState::Ok))));
        out.gauge("source_up", "Whether the source answers", up)?;
        let last = sources().map(|(labels, _, last)| (labels, last));
        let help = "When the source was last read completely, 0 for never";
        out.gauge("sync_last_success_timestamp_seconds", help, last)
    }

    pub(super) fn hooks(&self, out: &mut Output) -> fmt::Result {
        let Report { trunk, hooks, .. } = &*self.published;
        let attached = hooks.iter().map(|hook| {
            let labels = [
                ("trunk", trunk.as_str()),
                ("hook", hook.hook),
                ("mode", hook.mode),
                ("reason", hook.reason),
            ];
            (labels, hook.attached.into())
        });
        let help = "Whether our program is attached to a hook of the trunk, with its mode and the reason for that";
        out.gauge("attached", help, attached)?;
        let preceded = hooks.iter().map(|hook: &HookState| {
            let labels = [("trunk", trunk.as_str()), ("hook", hook.hook)];
            (labels, hook.preceded_by.len() as u64)
        });
        let help = "Programs and filters of others at a hook of the trunk that run before ours";
        out.gauge("hook_preceded", help, preceded)
    }

    /// Encodes whether the programs act on the tables, and on which of them.
    pub(super) fn trust(&self, out: &mut Output) -> fmt::Result {
        let Report {
            trunk,
            parents,
            listeners,
            conflicts,
            ..
        } = &*self.published;
        let alive = [([("trunk", trunk)], self.trust.alive.into())];
        let help = "Whether the programs trust the tables; if not, every frame is passed";
        out.gauge("heartbeat_alive", help, alive)?;
        let incomplete = [
            ("endpoints", Settings::ENDPOINTS),
            ("neighbors", Settings::NEIGHBORS),
            ("vlans", Settings::VLANS),
        ]
        .map(|(table, flag)| {
            let labels = [("trunk", trunk.as_str()), ("table", table)];
            (labels, (self.trust.incomplete & flag != 0).into())
        });
        let help = "Whether a table may lack entries; no frame is dropped because of that";
        out.gauge("tables_incomplete", help, incomplete)?;
        let left_alone = listeners.iter().flat_map(|(vid, listeners)| {
            listeners.iter().map(|listener: &Listener| {
                let labels = [
                    ("trunk", trunk.clone()),
                    ("vlan", vid.to_string()),
                    ("reason", listener.name().to_owned()),
                ];
                (labels, 1)
            })
        });
        let help = "A reason why vlanfast backs off on the VLAN";
        out.gauge("vlan_left_alone", help, left_alone)?;
        let mut claimed: BTreeMap<Vid, u64> = parents.keys().map(|vid| (*vid, 0)).collect();
        for conflict in conflicts {
            *claimed.entry(conflict.key.vid()).or_default() += 1;
        }
        let claimed = claimed.into_iter().map(|(vid, number)| {
            let labels = [("trunk", trunk.clone()), ("vlan", vid.to_string())];
            (labels, number)
        });
        let help = "Addresses and MACs of endpoints that a station on the wire has as well";
        out.gauge("address_conflicts", help, claimed)
    }

    pub(super) fn settings(&self, out: &mut Output) -> fmt::Result {
        let Report { trunk, policy, .. } = &*self.published;
        let switch = |number: u32| if number == 0 { "off" } else { "on" };
        let labels = [
            ("trunk", trunk.as_str()),
            ("steer", switch(policy.steer.into())),
            ("storm_limit", &policy.storm_limit.to_string()),
            ("group_limit", &policy.group_limit.to_string()),
            ("shed", Shed::from_number(policy.shed).name()),
            ("host_access", switch(policy.host_access)),
            ("shortcut", Shortcut::from_number(policy.shortcut).name()),
            ("deliver", policy.deliver_name()),
            ("dry_run", switch(policy.dry_run.into())),
        ];
        let help = "The policy that the programs follow";
        out.gauge("policy_info", help, [(labels, 1)])?;
        let version = [([("version", env!("CARGO_PKG_VERSION"))], 1)];
        out.gauge("build_info", "The version of vlanfast", version)
    }
}

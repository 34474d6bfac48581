//! The VLANs of a trunk in `status`.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use vlanfast_common::{Endpoint, Parent, Policy, Shed, Shortcut, Vid};

use crate::state::{
    listeners::{Listener, words},
    name::Name,
    snapshot::Ifindex,
    tables::DesiredTables,
};

#[derive(Serialize)]
pub struct VlanReport {
    pub vlan: u16,
    /// The VLAN's device on this host; null if there is none, but a receiver without one.
    pub parent: Option<String>,
    pub endpoints: usize,
    pub listeners: Vec<&'static str>,
    /// Whether the host and its containers on this VLAN reach each other.
    pub host_access: bool,
    /// The VLANs to and from which `--shortcut allow` takes packets past the router; both VLANs have containers.
    pub shortcut_to: Vec<u16>,
    /// The device at which the shortcut begins: the VLAN's own, or the trunk.
    pub shortcut_from: Option<String>,
    /// The parts of the policy from which the VLAN is exempt, and why.
    #[serde(skip)]
    pub exempt: Option<String>,
}

/// The VLANs that have a device or a listener. VID 0, untagged traffic, is included only with endpoints or listeners.
pub fn vlans(
    tables: &DesiredTables,
    policy: Policy,
    names: &BTreeMap<Ifindex, Name>,
) -> Vec<VlanReport> {
    let mut endpoints = BTreeMap::<u16, usize>::new();
    for (key, _) in tables
        .endpoints
        .iter()
        .filter(|(_, endpoint)| !endpoint.has(Endpoint::HOST))
    {
        *endpoints.entry(key.vid).or_default() += 1;
    }
    let shortcuts = shortcuts(tables, policy);
    let name = |ifindex| {
        let name = names.get(&Ifindex(ifindex));
        name.map_or_else(|| ifindex.to_string(), Name::to_string)
    };
    let trunk = tables
        .vlans
        .get(&Vid::UNTAGGED)
        .copied()
        .unwrap_or_default();
    let row = |(vid, &parent): (&Vid, &Parent)| {
        let shortcut_to = others(vid.get(), &shortcuts);
        let from = match parent.has(Parent::PROGRAM) {
            true => parent,
            false => trunk,
        };
        VlanReport {
            vlan: vid.get(),
            parent: (parent.ifindex != 0).then(|| name(parent.ifindex)),
            endpoints: endpoints.get(&vid.get()).copied().unwrap_or(0),
            listeners: Listener::of(parent).map(Listener::name).collect(),
            host_access: parent.has(Parent::HOST_ACCESS),
            shortcut_from: (!shortcut_to.is_empty()).then(|| name(from.ifindex)),
            shortcut_to,
            exempt: exempt(parent, policy),
        }
    };
    let rows = tables.vlans.iter().map(row);
    rows.filter(|vlan| vlan.vlan != 0 || vlan.endpoints > 0 || !vlan.listeners.is_empty())
        .collect()
}

/// The pairs of VLANs, from and to, between which there are routes past the router.
fn shortcuts(tables: &DesiredTables, policy: Policy) -> BTreeSet<(u16, u16)> {
    match Shortcut::from_number(policy.shortcut) {
        Shortcut::Allow => {
            let is_up = |vid| {
                let parent = tables.vlans.get(&Vid::new(vid));
                parent.is_some_and(|parent| parent.ifindex != 0 && parent.has(Parent::UP))
            };
            let routes = tables.routes.iter();
            let pairs = routes.map(|(key, route)| (key.vid, route.vid));
            pairs.filter(|&(_, to)| is_up(to)).collect()
        }
        // Learnt shortcuts belong to flows, which `vlanfast flows` shows.
        Shortcut::Off | Shortcut::Learned => BTreeSet::new(),
    }
}

/// The VLANs with routes in both directions. The programs use no others.
fn others(vid: u16, shortcuts: &BTreeSet<(u16, u16)>) -> Vec<u16> {
    let from_here = shortcuts.range((vid, 0)..=(vid, u16::MAX));
    let others = from_here.map(|&(_, to)| to);
    others
        .filter(|&to| shortcuts.contains(&(to, vid)))
        .collect()
}

/// The parts of the policy from which a VLAN is exempt, and why.
fn exempt(parent: Parent, policy: Policy) -> Option<String> {
    /// What the tables lack. These flags are no listeners.
    const LACKS: [(u32, &str); 2] = [
        (Parent::LEFT_OUT, "endpoints that were left out"),
        (Parent::SHORT, "addresses that were left out"),
    ];
    let is_limited = policy.storm_limit != 0 || policy.group_limit != 0;
    let features = [
        (policy.steer != 0, Parent::NO_STEER, "not steered"),
        (is_limited, Parent::UNLIMITED, "no storm limit"),
        (policy.shed == Shed::Mac as u32, Parent::UNSHED, "not shed"),
    ];
    let off = features
        .into_iter()
        .filter(|&(on, flags, _)| on && parent.has(flags));
    let (flags, off) = off.fold((0, vec![]), |(all, mut off), (_, flags, what)| {
        off.push(what);
        (all | flags, off)
    });
    let heard = Some(words(parent, flags)).filter(|words| !words.is_empty());
    let lacks = LACKS.iter().filter(|(flag, _)| parent.has(flags & flag));
    let lacks = lacks.map(|(_, words)| (*words).to_owned());
    let why: Vec<_> = heard.into_iter().chain(lacks).collect();
    (!off.is_empty()).then(|| format!("{}: {}", off.join(", "), why.join(", ")))
}

#[cfg(test)]
mod tests {
    use vlanfast_common::{NeighborKey, Route};

    use super::*;

    #[test]
    fn an_exemption_has_a_reason() {
        let policy = Policy {
            steer: 1,
            group_limit: 1,
            shed: Shed::Mac as u32,
            ..Policy::default()
        };
        let shown = |flags, policy| {
            let parent = Parent {
                flags,
                ..Parent::default()
            };
            exempt(parent, policy)
        };
        for (flags, expected) in [
            (Parent::LEFT_OUT, "not shed: endpoints that were left out"),
            (
                Parent::SHORT,
                "no storm limit: addresses that were left out",
            ),
            (
                Parent::UNSEEN | Parent::SHORT,
                "no storm limit, not shed: a receiver that no network namespace shows, addresses that were left out",
            ),
            (Parent::SOURCE, "not shed: a macvlan in mode source"),
        ] {
            assert_eq!(shown(flags, policy).as_deref(), Some(expected));
            assert_eq!(shown(flags, Policy::default()), None);
        }
        assert_eq!(shown(Parent::UP, policy), None);
    }

    #[test]
    fn a_shortcut_is_shown_if_there_are_routes_in_both_directions() {
        let mut tables = DesiredTables::default();
        for (from, to) in [
            (10, 20),
            (20, 10),
            (10, 30),
            (40, 10),
            (10, 40),
            (50, 10),
            (10, 50),
        ] {
            let address = format!("10.0.{to}.2").parse().unwrap();
            let key = NeighborKey::new(Vid::new(from), address);
            let route = Route {
                mac: [2, 0, 0, 0, 0, 1],
                vid: to,
            };
            tables.routes.insert(key, route);
        }
        for vid in [0, 10, 20, 30, 40, 50] {
            let parent = Parent {
                ifindex: vid.into(),
                flags: match vid {
                    50 => 0,
                    20 => Parent::UP | Parent::PROGRAM,
                    _ => Parent::UP,
                },
                ..Parent::default()
            };
            tables.vlans.insert(Vid::new(vid), parent);
        }
        let shown = |shortcut: Shortcut| {
            let policy = Policy {
                shortcut: shortcut as u32,
                ..Policy::default()
            };
            let rows = vlans(&tables, policy, &BTreeMap::new());
            let shown = rows
                .into_iter()
                .map(|row| (row.shortcut_to, row.shortcut_from));
            shown.collect::<Vec<_>>()
        };
        // A device without a name shows its index, which is its VID here.
        let at = |from: u16| Some(from.to_string());
        assert_eq!(
            shown(Shortcut::Allow),
            [
                (vec![20, 40], at(0)),
                (vec![10], at(20)),
                (vec![], None),
                (vec![10], at(0)),
                (vec![], None)
            ]
        );
        assert_eq!(shown(Shortcut::Learned), vec![(vec![], None); 5]);
    }
}

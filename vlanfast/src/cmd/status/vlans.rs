//! The VLANs of a trunk, as `status` shows them.

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
pub struct Vlan {
    pub vlan: u16,
    /// `None` where the host has no device, but somebody listens.
    pub parent: Option<String>,
    pub endpoints: usize,
    pub listeners: Vec<&'static str>,
    /// The host and its containers on it reach each other.
    pub host_access: bool,
    /// The VLANs with which packets may be exchanged without the router, by the administrator's word, and there
    /// are containers on both.
    pub shortcut_to: Vec<u16>,
    /// The device at which such packets do without it: the VLAN's own, or the trunk.
    pub shortcut_from: Option<String>,
    /// What of the policy does not concern it, and why.
    #[serde(skip)]
    pub without: Option<String>,
}

/// Those that have a device or a listener; the trunk itself if it has one, or endpoints.
pub fn vlans(tables: &DesiredTables, policy: Policy, names: &BTreeMap<Ifindex, Name>) -> Vec<Vlan> {
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
        Vlan {
            vlan: vid.get(),
            parent: (parent.ifindex != 0).then(|| name(parent.ifindex)),
            endpoints: endpoints.get(&vid.get()).copied().unwrap_or(0),
            listeners: Listener::of(parent).map(Listener::name).collect(),
            host_access: parent.has(Parent::HOST_ACCESS),
            shortcut_from: (!shortcut_to.is_empty()).then(|| name(from.ifindex)),
            shortcut_to,
            without: without(parent, policy),
        }
    };
    let rows = tables.vlans.iter().map(row);
    rows.filter(|vlan| vlan.vlan != 0 || vlan.endpoints > 0 || !vlan.listeners.is_empty())
        .collect()
}

/// From which VLANs to which there is a way without the router.
fn shortcuts(tables: &DesiredTables, policy: Policy) -> BTreeSet<(u16, u16)> {
    match Shortcut::from_number(policy.shortcut) {
        Shortcut::Allow => {
            let is_up = |vid| {
                let parent = tables.vlans.get(&Vid::new(vid));
                parent.is_some_and(|parent| parent.ifindex != 0 && parent.has(Parent::UP))
            };
            let routes = tables.routes.iter();
            let ways = routes.map(|(key, route)| (key.vid, route.vid));
            ways.filter(|&(_, to)| is_up(to)).collect()
        }
        // What is learnt is a matter of flows.
        Shortcut::Off | Shortcut::Learned => BTreeSet::new(),
    }
}

/// The other ends of those that lead there and back: the datapath takes no other.
fn others(vid: u16, shortcuts: &BTreeSet<(u16, u16)>) -> Vec<u16> {
    let from_here = shortcuts.range((vid, 0)..=(vid, u16::MAX));
    let others = from_here.map(|&(_, to)| to);
    others
        .filter(|&to| shortcuts.contains(&(to, vid)))
        .collect()
}

/// What of the policy does not concern a VLAN, and why.
fn without(parent: Parent, policy: Policy) -> Option<String> {
    /// What the tables lack, which is no listener.
    const LACKS: [(u32, &str); 2] = [
        (Parent::LEFT_OUT, "endpoints that find no room"),
        (Parent::SHORT, "addresses that find no room"),
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
    fn what_does_not_concern_a_vlan_has_a_reason() {
        let policy = Policy {
            steer: 1,
            group_limit: 1,
            shed: Shed::Mac as u32,
            ..Policy::default()
        };
        let said = |flags, policy| {
            let parent = Parent {
                flags,
                ..Parent::default()
            };
            without(parent, policy)
        };
        for (flags, expected) in [
            (Parent::LEFT_OUT, "not shed: endpoints that find no room"),
            (Parent::SHORT, "no storm limit: addresses that find no room"),
            (
                Parent::UNSEEN | Parent::SHORT,
                "no storm limit, not shed: a receiver that no network namespace shows, addresses that find no room",
            ),
            (Parent::SOURCE, "not shed: a macvlan in mode source"),
        ] {
            assert_eq!(said(flags, policy).as_deref(), Some(expected));
            assert_eq!(said(flags, Policy::default()), None);
        }
        assert_eq!(said(Parent::UP, policy), None);
    }

    #[test]
    fn a_shortcut_is_shown_where_it_leads_there_and_back() {
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
        // Devices without a name show their index, which is their VID here.
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

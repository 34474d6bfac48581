//! Tests of the metrics about vlanfast itself.

use super::*;

#[test]
fn a_source_that_does_not_answer_is_down_and_one_switched_off_has_no_series() {
    for state in [
        SourceState::Starting,
        SourceState::Absent,
        SourceState::NotPermitted,
        SourceState::Unreachable,
    ] {
        let mut published = published();
        published.sources[Source::Docker as usize].state = state as u32;
        let text = encode(published, &[]);
        let docker = r#"vlanfast_source_up{source="docker"} 0"#;
        assert!(series(&text, docker).len() == 1, "{state:?}");
    }
    assert!(!encode(published(), &[]).contains("docker"));
}

#[test]
fn a_hook_without_our_program_is_not_attached_and_preceding_programs_are_counted() {
    let mut published = published();
    published.hooks[0].attached = false;
    published.hooks[1].preceded_by = vec!["program 7".into(), "program 8".into()];
    let text = encode(published, &[]);
    assert_eq!(
        series(&text, "vlanfast_attached"),
        [
            r#"vlanfast_attached{trunk="eth0",hook="ingress",mode="tcx",reason="no-native-xdp"} 0"#,
            r#"vlanfast_attached{trunk="eth0",hook="egress",mode="tcx",reason=""} 1"#,
        ]
    );
    assert_eq!(
        series(&text, "vlanfast_hook_preceded"),
        [
            r#"vlanfast_hook_preceded{trunk="eth0",hook="ingress"} 0"#,
            r#"vlanfast_hook_preceded{trunk="eth0",hook="egress"} 2"#,
        ]
    );
}

#[test]
fn the_trust_of_the_programs_is_read_at_the_scrape() {
    let text = |alive, incomplete| {
        let trust = Trust { alive, incomplete };
        super::super::encode(Arc::new(published()), Totals::default(), trust).unwrap()
    };
    let alive = |text: &str| series(text, "vlanfast_heartbeat_alive{")[0].to_owned();
    assert_eq!(
        alive(&text(true, 0)),
        r#"vlanfast_heartbeat_alive{trunk="eth0"} 1"#
    );
    assert_eq!(
        alive(&text(false, 0)),
        r#"vlanfast_heartbeat_alive{trunk="eth0"} 0"#
    );
    for (incomplete, expected) in [
        (0, [0, 0, 0]),
        // A change that is being processed does not make a table incomplete.
        (Settings::CHANGING, [0, 0, 0]),
        (Settings::ENDPOINTS, [1, 0, 0]),
        (Settings::NEIGHBORS | Settings::CHANGING, [0, 1, 0]),
        (Settings::VLANS | Settings::ENDPOINTS, [1, 0, 1]),
    ] {
        let text = text(true, incomplete);
        let expected: Vec<_> = ["endpoints", "neighbors", "vlans"]
            .iter()
            .zip(expected)
            .map(|(table, number)| {
                format!(r#"vlanfast_tables_incomplete{{trunk="eth0",table="{table}"}} {number}"#)
            })
            .collect();
        assert_eq!(series(&text, "vlanfast_tables_incomplete"), expected);
    }
}

#[test]
fn vlans_with_backoff_are_listed_with_every_reason() {
    let mut published = published();
    let listeners = [
        (Vid::UNTAGGED, vec![Listener::Promiscuous]),
        (Vid::new(10), vec![Listener::Port, Listener::Ipvlan]),
    ];
    published.listeners = Arc::new(listeners.into());
    let text = encode(published, &[]);
    let left_alone = "vlanfast_vlan_left_alone";
    assert_eq!(
        series(&text, left_alone),
        [("0", "promiscuous"), ("10", "port"), ("10", "ipvlan")].map(|(vlan, reason)| format!(
            r#"{left_alone}{{trunk="eth0",vlan="{vlan}",reason="{reason}"}} 1"#
        ))
    );
    assert_eq!(series(&encode(self::published(), &[]), left_alone), [""; 0]);
}

#[test]
fn addresses_that_the_wire_claims_are_counted_by_vlan() {
    let conflict = |vid, last| Conflict {
        key: NeighborKey::ipv4(Vid::new(vid), [10, 0, 0, last]),
        receiver: [2, 0, 0, 0, 0, 1],
        by: [2, 0, 0, 0, 0, 2],
    };
    let published = Report {
        conflicts: vec![conflict(0, 1), conflict(10, 1), conflict(10, 2)],
        ..published()
    };
    let name = "vlanfast_address_conflicts";
    let text = encode(published, &[]);
    assert_eq!(
        series(&text, name),
        [(0, 1), (10, 2)]
            .map(|(vlan, number)| format!(r#"{name}{{trunk="eth0",vlan="{vlan}"}} {number}"#))
    );
    // A VLAN with a host device always has a number, so that an alert sees the end of a conflict.
    let none = encode(self::published(), &[]);
    assert!(series(&none, name).iter().all(|line| line.ends_with(" 0")));
    assert_eq!(series(&none, name).len(), 2);
}

#[test]
fn the_policy_is_in_the_words_of_the_command_line() {
    let policy = |policy| {
        let published = Report {
            policy,
            ..published()
        };
        series(&encode(published, &[]), "vlanfast_policy_info")[0].to_owned()
    };
    assert_eq!(
        policy(Policy::default()),
        r#"vlanfast_policy_info{trunk="eth0",steer="off",storm_limit="0",group_limit="0",shed="off",host_access="off",shortcut="off",deliver="kernel",dry_run="off"} 1"#
    );
    let everything = Policy {
        steer: 1,
        storm_limit: 100,
        group_limit: 200,
        shed: Shed::Mac as u32,
        dry_run: 1,
        host_access: 1,
        shortcut: Shortcut::Learned as u32,
        shortcut_refresh: 10,
        deliver: 1,
    };
    assert_eq!(
        policy(everything),
        r#"vlanfast_policy_info{trunk="eth0",steer="on",storm_limit="100",group_limit="200",shed="mac",host_access="on",shortcut="learned",deliver="redirect",dry_run="on"} 1"#
    );
}

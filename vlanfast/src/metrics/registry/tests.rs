//! Tests of the text of a scrape.

mod state;

use vlanfast_common::{
    EndpointKey, Mac, NeighborKey, Policy, Settings, Shed, Shortcut, Source, SourceState,
    SourceStatus, Tally, Vid,
};

use super::*;
use crate::state::{
    claims::Conflict,
    listeners::Listener,
    names::Names,
    plan::Over,
    report::{HookState, LeftOut, MapFill},
};

fn published() -> Report {
    let vid = Vid::new(10);
    let names = Names {
        container: Some("container0".into()),
        network: Some("macvlan10".into()),
        ..Names::default()
    };
    let source = |state: SourceState, last_success| SourceStatus {
        state: state as u32,
        last_success,
        ..SourceStatus::default()
    };
    let hook = |hook, mode, reason| HookState {
        hook,
        mode,
        reason,
        attached: true,
        preceded_by: vec![],
    };
    let key = |last| EndpointKey::new(vid, Mac([2, 0, 0, 0, 0, last]));
    let parents = [(Vid::UNTAGGED, "eth0".into()), (vid, "eth0.10".into())];
    let endpoints = [(key(1), names), (key(2), Names::default())];
    Report {
        trunk: "eth0".into(),
        parents: Arc::new(parents.into()),
        endpoints: Arc::new(endpoints.into()),
        maps: vec![MapFill {
            map: "ENDPOINTS",
            entries: 2,
            capacity: 16384,
            left_out: 3,
        }],
        sources: [
            source(SourceState::Ok, 1_700_000_000),
            source(SourceState::Off, 0),
        ],
        hooks: vec![
            hook("ingress", "tcx", "no-native-xdp"),
            hook("egress", "tcx", ""),
        ],
        policy: Policy::default(),
        listeners: Arc::default(),
        conflicts: vec![],
        left_out: Arc::new(vec![LeftOut {
            nsid: 3,
            container: Some("noisy".into()),
            over: Over {
                endpoints: 0,
                addresses: 7,
            },
        }]),
    }
}

fn encode(published: Report, counters: &[(Vlan, Counters)]) -> String {
    let totals = Totals {
        vlans: counters.to_vec(),
        ..Totals::default()
    };
    super::encode(Arc::new(published), totals, ALIVE).unwrap()
}

const ALIVE: Trust = Trust {
    alive: true,
    incomplete: 0,
};

#[test]
fn flows_are_told_apart_by_the_vlans_that_they_join() {
    let pair = VlanPairCounters::from([5, 4, 300, 4_000, 2, 1]);
    let totals = Totals {
        pairs: [(VlanPair { from: 10, to: 20 }, pair)].into(),
        ..Totals::default()
    };
    let published = Report {
        trunk: "eth0".into(),
        ..Report::default()
    };
    let text = super::encode(Arc::new(published), totals, ALIVE).unwrap();
    for (name, number) in [
        ("candidates", 5),
        ("enabled", 4),
        ("packets", 300),
        ("bytes", 4_000),
        ("refreshes", 2),
        ("failures", 1),
    ] {
        let name = format!("vlanfast_shortcut_{name}_total");
        let line = format!("{name}{{trunk=\"eth0\",from=\"10\",to=\"20\"}} {number}");
        assert_eq!(series(&text, &name), [line]);
    }
}

/// Returns the series of a scrape whose names have this prefix.
fn series<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let is_named = |line: &&str| line.starts_with(name);
    text.lines().filter(is_named).collect()
}

#[test]
fn counters_are_told_apart_by_vlan_direction_and_cast() {
    let vlan = Vlan::id(Vid::new(10));
    let counters = Counters {
        rx: Tally {
            packets: [1, 2, 3],
            bytes: 600,
        },
        tx: Tally {
            packets: [4, 0, 0],
            bytes: 256,
        },
        steered: 2,
        delivered: 1,
        disputed: 1,
        dropped: [1, 0, 0, 0, 0],
        ..Counters::default()
    };
    let published = Report {
        trunk: "eth0".into(),
        ..Report::default()
    };
    let text = encode(published, &[(vlan, counters)]);
    let expected = [
        r#"vlanfast_rx_packets_total{trunk="eth0",vlan="10",cast="unicast"} 1"#,
        r#"vlanfast_rx_packets_total{trunk="eth0",vlan="10",cast="multicast"} 2"#,
        r#"vlanfast_rx_packets_total{trunk="eth0",vlan="10",cast="broadcast"} 3"#,
        r#"vlanfast_rx_bytes_total{trunk="eth0",vlan="10"} 600"#,
    ];
    assert_eq!(series(&text, "vlanfast_rx"), expected);
    assert_eq!(
        series(&text, "vlanfast_tx_bytes"),
        [r#"vlanfast_tx_bytes_total{trunk="eth0",vlan="10"} 256"#]
    );
    let verdicts = series(&text, "vlanfast_verdicts");
    assert_eq!(
        verdicts[0],
        r#"vlanfast_verdicts_total{trunk="eth0",vlan="10",direction="rx",verdict="pass"} 2"#
    );
    assert_eq!(
        verdicts[2],
        r#"vlanfast_verdicts_total{trunk="eth0",vlan="10",direction="rx",verdict="deliver"} 1"#
    );
    assert_eq!(verdicts.len(), 7);
    assert_eq!(
        series(&text, "vlanfast_drops"),
        [
            r#"vlanfast_drops_total{trunk="eth0",vlan="10",reason="storm"} 1"#,
            r#"vlanfast_drops_total{trunk="eth0",vlan="10",reason="shed_vlan"} 0"#,
            r#"vlanfast_drops_total{trunk="eth0",vlan="10",reason="shed_mac"} 0"#,
            r#"vlanfast_drops_total{trunk="eth0",vlan="10",reason="returned"} 0"#,
            r#"vlanfast_drops_total{trunk="eth0",vlan="10",reason="group"} 0"#,
        ]
    );
    assert_eq!(
        series(&text, "vlanfast_disputed"),
        [r#"vlanfast_disputed_total{trunk="eth0",vlan="10"} 1"#]
    );
}

#[test]
fn a_vlan_has_series_if_it_has_a_device_or_had_traffic() {
    let traffic = Counters {
        tx: Tally {
            packets: [1, 0, 0],
            bytes: 60,
        },
        ..Counters::default()
    };
    let busy = [Vlan::id(Vid::new(4095)), Vlan::SERVICE, Vlan::TRUNCATED];
    let counters: Vec<_> = Vlan::all()
        .map(|vlan| match busy.contains(&vlan) {
            true => (vlan, traffic),
            false => (vlan, Counters::default()),
        })
        .collect();
    let text = encode(published(), &counters);
    let vlans: Vec<_> = series(&text, "vlanfast_tx_bytes")
        .iter()
        .filter_map(|line| line.split('"').nth(3))
        .collect();
    assert_eq!(vlans, ["0", "10", "4095", "802.1ad", "truncated"]);
}

#[test]
fn endpoints_are_counted_and_named() {
    let text = encode(published(), &[]);
    assert_eq!(
        series(&text, "vlanfast_endpoint"),
        [
            r#"vlanfast_endpoints{trunk="eth0",vlan="0"} 0"#,
            r#"vlanfast_endpoints{trunk="eth0",vlan="10"} 2"#,
            r#"vlanfast_endpoint_info{trunk="eth0",vlan="10",mac="02:00:00:00:00:01",network="macvlan10",container="container0"} 1"#,
            r#"vlanfast_endpoint_info{trunk="eth0",vlan="10",mac="02:00:00:00:00:02",network="",container=""} 1"#,
        ]
    );
}

#[test]
fn maps_sources_and_hooks_are_shown() {
    let text = encode(published(), &[]);
    let expected = [
        r#"vlanfast_map_entries{trunk="eth0",map="ENDPOINTS"} 2"#,
        r#"vlanfast_map_capacity{trunk="eth0",map="ENDPOINTS"} 16384"#,
        r#"vlanfast_map_left_out{trunk="eth0",map="ENDPOINTS"} 3"#,
        r#"vlanfast_left_out{trunk="eth0",nsid="3",container="noisy",what="addresses"} 7"#,
        r#"vlanfast_source_up{source="netlink"} 1"#,
        r#"vlanfast_sync_last_success_timestamp_seconds{source="netlink"} 1700000000"#,
        r#"vlanfast_attached{trunk="eth0",hook="ingress",mode="tcx",reason="no-native-xdp"} 1"#,
        r#"vlanfast_attached{trunk="eth0",hook="egress",mode="tcx",reason=""} 1"#,
    ];
    let shown: Vec<_> = ["map", "left_out", "source", "sync", "attached"]
        .iter()
        .flat_map(|name| series(&text, &format!("vlanfast_{name}")))
        .collect();
    assert_eq!(shown, expected);
    assert_eq!(
        series(&text, "vlanfast_build_info"),
        [concat!(
            r#"vlanfast_build_info{version=""#,
            env!("CARGO_PKG_VERSION"),
            r#""} 1"#
        )]
    );
}

#[test]
fn a_name_cannot_break_out_of_its_label() {
    let mut published = published();
    published.trunk = "a\"b\\c\nd".into();
    let text = encode(published, &[]);
    assert!(text.contains(r#"{trunk="a\"b\\c\nd","#), "{text}");
}

#[test]
fn every_metric_has_its_row_in_the_documentation() {
    const DOCUMENTATION: &str = include_str!("../../../../docs/metrics.md");
    let text = encode(published(), &[]);
    let mut names: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .filter_map(|line| line.split_once(' '))
        .map(|(name, kind)| (name.trim_end_matches("_total"), kind))
        .collect();
    names.sort();
    let mut documented: Vec<_> = DOCUMENTATION
        .lines()
        .filter(|line| line.starts_with("| `vlanfast_"))
        .map(|line| {
            let mut cells = line.split('|').map(str::trim).skip(1);
            let (name, kind) = (cells.next().unwrap(), cells.nth(1).unwrap());
            (name.trim_matches('`').trim_end_matches("_total"), kind)
        })
        .collect();
    documented.sort();
    assert_eq!(names, documented);
}

//! Level `vm`: a real Prometheus scrapes vlanfast on the tutorial's network. The linter, the alerts, and every query
//! of the dashboard and of docs/metrics.md must work on the result.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use vlanfast_tests::{
    fixtures::tutorial::Tutorial,
    net::namespace::run,
    require,
    run::{
        program::Attached,
        prometheus::{Prometheus, get, promtool},
        require::in_the_lab,
    },
};

const ALERTS: &str = include_str!("../../deploy/prometheus/alerts.yml");
const ALERTS_TEST: &str = include_str!("../../deploy/prometheus/alerts_test.yml");
const DASHBOARD: &str = include_str!("../../deploy/grafana/vlanfast.json");

const METRICS_PORT: u16 = 9436;
const PROMETHEUS_PORT: u16 = 9490;

/// The containers of the tutorial by VLAN.
const CONTAINERS: &[(&str, &str)] = &[
    ("10", "container0"),
    ("10", "container1"),
    ("20", "container1"),
    ("20", "container2"),
];

/// Repeats an attempt until it succeeds; under emulation a scrape and a rate take a while.
fn eventually<T>(what: &str, attempt: impl Fn() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match attempt() {
            Ok(result) => return result,
            Err(why) if start.elapsed() > Duration::from_secs(60) => panic!("{what}: {why}"),
            Err(_) => thread::sleep(Duration::from_millis(500)),
        }
    }
}

/// Returns the values of a vector by one or two of its labels.
fn by_labels(series: &[Value], labels: &[&str]) -> Vec<(Vec<String>, f64)> {
    let mut all: Vec<_> = series
        .iter()
        .map(|one| {
            let label = |name: &&str| one["metric"][*name].as_str().unwrap_or("").to_owned();
            let value = one["value"][1].as_str().unwrap().parse().unwrap();
            (labels.iter().map(label).collect(), value)
        })
        .collect();
    all.sort_by(|a: &(Vec<String>, f64), b| a.0.cmp(&b.0));
    all
}

/// Returns every `expr` of the dashboard, for all trunks and VLANs.
fn dashboard_queries() -> Vec<String> {
    fn collect(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => fields.iter().for_each(|(name, value)| match value {
                Value::String(query) if name == "expr" => found.push(query.clone()),
                value => collect(value, found),
            }),
            Value::Array(values) => values.iter().for_each(|value| collect(value, found)),
            _ => {}
        }
    }
    let mut queries = vec![];
    collect(&serde_json::from_str(DASHBOARD).unwrap(), &mut queries);
    let substitute = |query: String| {
        query
            .replace("$__rate_interval", "10s")
            .replace("$trunk", ".*")
            .replace("$vlan", ".*")
    };
    queries.into_iter().map(substitute).collect()
}

/// Pings the router from a container on each VLAN for as long as the test takes.
fn keep_talking() {
    for (container, router) in [("container0", "10.0.10.1"), ("container2", "10.0.20.1")] {
        run(&format!("docker exec -d {container} ping -i 0.2 {router}")).unwrap();
    }
}

fn rates_by_vlan(prometheus: &Prometheus) {
    eventually("rates of VLANs 10 and 20", || {
        let query = "sum by (vlan) (rate(vlanfast_rx_packets_total[10s]))";
        let rates = by_labels(&prometheus.query(query).unwrap(), &["vlan"]);
        let moves = |vid: &str| {
            rates
                .iter()
                .any(|(vlan, rate)| *vlan == [vid] && *rate > 0.0)
        };
        match moves("10") && moves("20") {
            true => Ok(()),
            false => Err(format!("{rates:?}")),
        }
    });
}

fn containers_by_vlan(prometheus: &Prometheus) {
    let query = "sum by (vlan, container) (vlanfast_endpoints \
                 * on (trunk, vlan) group_right vlanfast_endpoint_info)";
    let expected: Vec<_> = CONTAINERS
        .iter()
        .map(|(vlan, container)| (vec![vlan.to_string(), container.to_string()], 2.0))
        .collect();
    eventually("containers of each VLAN", || {
        let found = by_labels(&prometheus.query(query).unwrap(), &["vlan", "container"]);
        match found == expected {
            true => Ok(()),
            false => Err(format!("{found:?}")),
        }
    });
}

/// Every query returns data on a healthy host.
fn the_dashboard_has_data(prometheus: &Prometheus) {
    let queries = dashboard_queries();
    assert!(queries.len() > 10, "{queries:?}");
    for query in queries {
        // After a scrape that timed out, there is no data until the next one.
        eventually(&query, || match prometheus.query(&query).unwrap().len() {
            0 => Err("finds nothing".to_owned()),
            _ => Ok(()),
        });
    }
}

/// Every alert is evaluated without error, and none fires on a healthy host.
fn alerts_are_quiet(prometheus: &Prometheus) {
    let rules = eventually("evaluation of the alerts", || {
        let rules = prometheus.rules().unwrap();
        match rules.iter().all(|rule| rule["health"] != "unknown") {
            true => Ok(rules),
            false => Err(format!("{rules:?}")),
        }
    });
    assert!(rules.len() >= 5, "{rules:?}");
    for rule in rules {
        assert_eq!(rule["health"], "ok", "{rule}");
        assert_eq!(rule["state"], "inactive", "{rule}");
    }
}

#[test]
fn alerts_fire_where_they_should_and_nowhere_else() {
    require!("alerts", in_the_lab(), "needs the lab's virtual machine");
    let dir = tempfile::tempdir().unwrap();
    let write = |name, text| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let rules = write("alerts.yml", ALERTS);
    promtool(&["check", "rules", &rules], "").unwrap();
    let test = write("alerts_test.yml", ALERTS_TEST);
    promtool(&["test", "rules", &test], "").unwrap();
}

#[test]
fn prometheus_takes_the_metrics_and_answers_by_vlan_and_container() {
    require!("metrics", in_the_lab(), "needs the lab's virtual machine");
    let lab = Tutorial::start().unwrap();
    let address = format!("127.0.0.1:{METRICS_PORT}");
    let attached = Attached::start(&lab.host, "eth0", &["--metrics", &address]).unwrap();
    eventually("readiness", || match get(METRICS_PORT, "/ready") {
        Ok((200, _)) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    keep_talking();

    let (status, metrics) = get(METRICS_PORT, "/metrics").unwrap();
    assert_eq!(status, 200, "{metrics}");
    assert_eq!(promtool(&["check", "metrics"], &metrics).unwrap(), "");
    let prometheus = Prometheus::start(PROMETHEUS_PORT, METRICS_PORT, ALERTS).unwrap();
    rates_by_vlan(&prometheus);
    containers_by_vlan(&prometheus);
    the_dashboard_has_data(&prometheus);
    alerts_are_quiet(&prometheus);
    drop(prometheus);
    attached.stop().unwrap();
}

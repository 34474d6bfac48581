//! Reads the maps from another process, by `vlanfast endpoints` and map by map.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::run::program::Attached;

/// Returns the row of the endpoint whose device has a name.
pub fn endpoint<'a>(endpoints: &'a [Value], device: &str) -> Option<&'a Value> {
    endpoints.iter().find(|row| row["device"] == device)
}

/// Waits until the endpoints satisfy a condition; fails with the last ones read.
pub fn eventually(what: &str, attached: &Attached, condition: impl Fn(&[Value]) -> bool) {
    let start = Instant::now();
    loop {
        let endpoints = attached
            .endpoints()
            .expect("endpoints can be read while attached");
        if condition(&endpoints) {
            return;
        }
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "never came: {what}; the endpoints are {endpoints:#?}"
        );
        thread::sleep(Duration::from_millis(50));
    }
}

/// Waits until `status` shows exactly these listeners on a VLAN.
pub fn listeners(attached: &Attached, vlan: u16, expected: &[&str]) {
    let start = Instant::now();
    loop {
        let status = attached
            .status()
            .expect("status can be read while attached");
        let vlans = status["vlans"].as_array().expect("vlans are an array");
        let row = vlans.iter().find(|row| row["vlan"] == vlan);
        let found = row.map_or_else(Vec::new, |row| {
            let listeners = row["listeners"].as_array();
            listeners.expect("listeners are an array").clone()
        });
        if found == expected {
            return;
        }
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "VLAN {vlan} should have the listeners {expected:?}: {status:#}"
        );
        thread::sleep(Duration::from_millis(20));
    }
}

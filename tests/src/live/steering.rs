//! Steering on live trunks, and when it must not happen. Every public function is a test that runs over one kind of
//! device; [`live_tests`](crate::live_tests) makes tests of them and of those in [`storm`](crate::live::storm) and
//! [`shedding`](crate::live::shedding).

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use nix::sys::signal::{Signal, kill};
use serde_json::Value;

use crate::{
    fixtures::{
        one_vlan::{Addresses, OneVlan, Received, request, solicit},
        vlan_counts::VlanCounts,
    },
    net::{
        messages::{ABSENT, MDNS, SENDER, advertisement, arp, mdns6, udp},
        packet::{BROADCAST, frame},
        topology::Wire,
    },
    run::observe::eventually,
};

/// The lifetime of a heartbeat, as the README states it.
const VALIDITY: Duration = Duration::from_secs(3);

/// Makes a test of every scenario over a kind of [`Wire`], on a VLAN, with a way to read ingress. Where the condition
/// does not hold, the tests are skipped with the reason given.
#[macro_export]
macro_rules! live_tests {
    ($kind:ident: $wire:expr, $vid:expr, $ingress:expr, if $condition:expr, $reason:expr) => {
        $crate::live_tests!($kind: $wire, $vid, $ingress, if $condition, $reason;
            steering::frames_for_one_endpoint_reach_only_that_endpoint
            storm::a_storm_is_limited_and_every_endpoint_still_answers
            steering::features_that_are_switched_off_do_nothing
            shedding::frames_of_vlans_without_a_device_are_shed
            shedding::frames_for_a_mac_that_nobody_has_are_shed
            steering::without_a_running_daemon_every_frame_is_passed
            steering::a_dry_run_counts_and_steers_nothing
            steering::requests_for_a_conflicting_address_stay_broadcasts
        );
    };
    ($kind:ident: $wire:expr, $vid:expr, $ingress:expr, if $condition:expr, $reason:expr; $($module:ident::$test:ident)*) => {
        mod $kind {
            #[allow(unused_imports, reason = "what the kind is made of")]
            use super::*;
            $(
                #[test]
                fn $test() {
                    $crate::require!(stringify!($kind, $test), $condition, $reason);
                    $crate::live::$module::$test($wire.unwrap(), $vid, $ingress).unwrap();
                }
            )*
        }
    };
}

/// Returns what one container receives and what all the others receive.
fn only(container: usize, of: &OneVlan, heard: Received) -> Vec<Received> {
    let mut all = vec![Received::NOTHING; of.endpoints.len()];
    all[container] = heard;
    all
}

fn everyone(of: &OneVlan, heard: Received) -> Vec<Received> {
    vec![heard; of.endpoints.len()]
}

/// Sends an ARP request and a solicitation for an endpoint, `times` times each, and waits until they were received
/// and answered.
fn asked(vlan: &OneVlan, endpoint: &Addresses, times: u64, expected: &[Received]) -> Result<()> {
    let mut ears = vlan.listen()?;
    for frame in [request(endpoint.address), solicit(endpoint.address6)] {
        vlan.send(&frame, times)?;
        ears.have_heard(&frame, expected)?;
    }
    ears.answers(endpoint, times)?;
    ears.advertisements(endpoint, times)
}

pub fn frames_for_one_endpoint_reach_only_that_endpoint(
    wire: Wire,
    vid: u16,
    ingress: &'static str,
) -> Result<()> {
    let vlan = OneVlan::new(wire, vid, ingress, 3)?;
    let attached = vlan.attach(&[])?;
    let mut expected = VlanCounts::default();
    for (number, endpoint) in vlan.endpoints.iter().enumerate() {
        asked(&vlan, endpoint, 3, &only(number, &vlan, Received::alone(3)))?;
        expected.steer += 6;
    }
    asked(&vlan, &vlan.host, 3, &everyone(&vlan, Received::NOTHING))?;
    expected.steer += 6;
    vlan.counted(expected)?;

    let mut ears = vlan.listen()?;
    let to_everyone = [
        frame(BROADCAST, &arp(1, SENDER, SENDER), 60),
        frame(BROADCAST, &arp(2, SENDER, vlan.endpoints[0].address), 60),
        frame(
            [1, 0, 0x5e, 0, 0, 0xfb],
            &udp(0x45, 0, [224, 0, 0, 251], MDNS, &[0; 40]),
            60,
        ),
        frame([0x33, 0x33, 0, 0, 0, 0xfb], &mdns6(), 60),
        frame([0x33, 0x33, 0, 0, 0, 1], &advertisement(), 60),
    ];
    for frame in &to_everyone {
        vlan.send(frame, 1)?;
        ears.have_heard(frame, &everyone(&vlan, Received::by_group(1)))?;
        expected.pass += 1;
    }
    vlan.counted(expected)?;
    attached.stop()
}

pub fn features_that_are_switched_off_do_nothing(
    wire: Wire,
    vid: u16,
    ingress: &'static str,
) -> Result<()> {
    let vlan = OneVlan::new(wire, vid, ingress, 2)?;
    // Requests that are not steered go to every endpoint, and have their share of the limit.
    let attached = vlan.attach(&["--steer", "off", "--storm-limit", "10000"])?;
    for endpoint in vlan.endpoints.iter().chain([&vlan.host]) {
        asked(&vlan, endpoint, 3, &everyone(&vlan, Received::by_group(3)))?;
    }
    let passed = |pass| VlanCounts {
        pass,
        ..VlanCounts::default()
    };
    vlan.counted(passed(18))?;
    attached.stop()?;

    // The counters were removed with the previous attachment.
    let attached = vlan.attach(&["--storm-limit", "0"])?;
    let mut ears = vlan.listen()?;
    let absent = request(ABSENT);
    vlan.send(&absent, 300)?;
    ears.have_heard(&absent, &everyone(&vlan, Received::by_group(300)))?;
    vlan.counted(passed(300))?;
    attached.stop()
}

/// Checks that every frame reaches every endpoint, as without vlanfast.
fn everyone_hears(vlan: &OneVlan) -> Result<()> {
    let before = VlanCounts::of(&vlan.wire, vlan.vid)?;
    let endpoint = &vlan.endpoints[0];
    asked(vlan, endpoint, 3, &everyone(vlan, Received::by_group(3)))?;
    let mut ears = vlan.listen()?;
    vlan.send(&request(ABSENT), 20)?;
    ears.have_heard(&request(ABSENT), &everyone(vlan, Received::by_group(20)))?;
    let expected = VlanCounts {
        pass: before.pass + 26,
        ..before
    };
    vlan.counted(expected)
}

pub fn without_a_running_daemon_every_frame_is_passed(
    wire: Wire,
    vid: u16,
    ingress: &'static str,
) -> Result<()> {
    let vlan = OneVlan::new(wire, vid, ingress, 2)?;
    let endpoint = vlan.endpoints[0];
    let alone = only(0, &vlan, Received::alone(1));
    let attached = vlan.attach(&["--storm-limit", "1"])?;
    asked(&vlan, &endpoint, 1, &alone)?;

    kill(attached.pid(), Signal::SIGSTOP)?;
    thread::sleep(VALIDITY + Duration::from_millis(200));
    everyone_hears(&vlan)?;
    kill(attached.pid(), Signal::SIGCONT)?;
    let before = VlanCounts::of(&vlan.wire, vlan.vid)?;
    let start = Instant::now();
    while VlanCounts::of(&vlan.wire, vlan.vid)?.steer == before.steer {
        ensure!(
            start.elapsed() < Duration::from_secs(20),
            "it goes on, and nothing is steered"
        );
        thread::sleep(Duration::from_millis(100));
        vlan.send(&request(endpoint.address), 1)?;
    }

    attached.kill()?;
    thread::sleep(VALIDITY + Duration::from_millis(200));
    everyone_hears(&vlan)?;
    let attached = vlan.attach(&["--storm-limit", "1"])?;
    asked(&vlan, &endpoint, 1, &alone)?;
    attached.stop()
}

pub fn a_dry_run_counts_and_steers_nothing(
    wire: Wire,
    vid: u16,
    ingress: &'static str,
) -> Result<()> {
    let vlan = OneVlan::new(wire, vid, ingress, 2)?;
    let attached = vlan.attach(&["--dry-run", "--storm-limit", "1"])?;
    let by_group = everyone(&vlan, Received::by_group(3));
    asked(&vlan, &vlan.endpoints[0], 3, &by_group)?;
    let mut ears = vlan.listen()?;
    vlan.send(&request(ABSENT), 20)?;
    ears.have_heard(&request(ABSENT), &everyone(&vlan, Received::by_group(20)))?;
    let found = VlanCounts::of(&vlan.wire, vlan.vid)?;
    // One request passes at once, and one more each second.
    ensure!((1..=10).contains(&found.pass), "{found:?}");
    let expected = VlanCounts {
        pass: found.pass,
        steer: 6,
        storm: 20 - found.pass,
        ..VlanCounts::default()
    };
    vlan.counted(expected)?;
    attached.stop()
}

pub fn requests_for_a_conflicting_address_stay_broadcasts(
    wire: Wire,
    vid: u16,
    ingress: &'static str,
) -> Result<()> {
    let mut vlan = OneVlan::new(wire, vid, ingress, 2)?;
    let first = vlan.endpoints[0];
    let second = Addresses {
        mac: [2, 0, 0, 0, 1, 9],
        ..first
    };
    vlan.add(second)?;
    let attached = vlan.attach(&[])?;
    let is_in_conflict = |row: &Value| row["conflict"] == true;
    eventually("conflict", &attached, |endpoints| {
        endpoints.iter().any(is_in_conflict)
    });
    let mut ears = vlan.listen()?;
    let mut expected = VlanCounts::default();
    for frame in [request(first.address), solicit(first.address6)] {
        vlan.send(&frame, 3)?;
        ears.have_heard(&frame, &everyone(&vlan, Received::by_group(3)))?;
        expected.pass += 3;
        expected.disputed += 3;
    }
    for endpoint in [first, second] {
        ears.answers(&endpoint, 3)?;
        ears.advertisements(&endpoint, 3)?;
    }
    vlan.counted(expected)?;

    // One of the two gives the address up.
    vlan.run(0, "ip addr flush dev eth0")?;
    eventually("peace", &attached, |endpoints| {
        !endpoints.iter().any(is_in_conflict)
    });
    asked(&vlan, &second, 3, &only(2, &vlan, Received::alone(3)))?;
    expected.steer += 6;
    vlan.counted(expected)?;
    attached.stop()
}

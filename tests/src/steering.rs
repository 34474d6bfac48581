//! Steering on live trunks, and when it must not be. Every public function is a test of its own over one
//! kind of device; [`live_tests`](crate::live_tests) makes tests of them, of those of [`storm`](crate::storm)
//! and of those of [`shedding`](crate::shedding).

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use nix::sys::signal::{Signal, kill};
use serde_json::Value;

use crate::{
    messages::{ABSENT, MDNS, SENDER, advertisement, arp, mdns6, udp},
    packet::{BROADCAST, frame},
    scene::{Decisions, Heard, Scene, Receiver, request, solicit},
    sync::eventually,
    topology::Wire,
};

/// How long a heartbeat is good for, as README has it.
const VALIDITY: Duration = Duration::from_secs(3);

/// Makes a test of every scenario: over a kind of [`Wire`], on a VLAN, with a way to read ingress. Where a
/// condition does not hold, they can't run, for a reason.
#[macro_export]
macro_rules! live_tests {
    ($kind:ident: $wire:expr, $vid:expr, $ingress:expr, if $condition:expr, $reason:expr) => {
        $crate::live_tests!($kind: $wire, $vid, $ingress, if $condition, $reason;
            steering::what_seeks_one_receiver_reaches_that_one_alone
            storm::a_storm_is_cut_off_and_everyone_here_answers_all_the_same
            steering::what_is_switched_off_is_not_done
            shedding::frames_of_vlans_without_a_device_are_shed
            shedding::frames_for_a_mac_that_nobody_has_are_shed
            steering::a_process_that_is_killed_or_hangs_leaves_every_frame_alone
            steering::a_dry_run_counts_and_everyone_hears
            steering::a_disputed_address_is_asked_for_by_broadcast
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
                    $crate::$module::$test($wire.unwrap(), $vid, $ingress).unwrap();
                }
            )*
        }
    };
}

/// What one of some containers hears, and all the others.
fn only(container: usize, of: &Scene, heard: Heard) -> Vec<Heard> {
    let mut all = vec![Heard::NOTHING; of.receivers.len()];
    all[container] = heard;
    all
}

fn everyone(of: &Scene, heard: Heard) -> Vec<Heard> {
    vec![heard; of.receivers.len()]
}

/// Sends both ways to ask for a receiver, `times` times each, and waits until they were heard and answered.
fn asked(scene: &Scene, receiver: &Receiver, times: u64, expected: &[Heard]) -> Result<()> {
    let mut ears = scene.listen()?;
    for frame in [request(receiver.address), solicit(receiver.address6)] {
        scene.send(&frame, times)?;
        ears.have_heard(&frame, expected)?;
    }
    ears.answers(receiver, times)?;
    ears.advertisements(receiver, times)
}

pub fn what_seeks_one_receiver_reaches_that_one_alone(
    wire: Wire,
    vid: u16,
    ingress: &'static str,
) -> Result<()> {
    let scene = Scene::new(wire, vid, ingress, 3)?;
    let attached = scene.attach(&[])?;
    let mut expected = Decisions::default();
    for (number, receiver) in scene.receivers.iter().enumerate() {
        asked(&scene, receiver, 3, &only(number, &scene, Heard::alone(3)))?;
        expected.steer += 6;
    }
    asked(&scene, &scene.host, 3, &everyone(&scene, Heard::NOTHING))?;
    expected.steer += 6;
    scene.counted(expected)?;

    let mut ears = scene.listen()?;
    let to_everyone = [
        frame(BROADCAST, &arp(1, SENDER, SENDER), 60),
        frame(BROADCAST, &arp(2, SENDER, scene.receivers[0].address), 60),
        frame(
            [1, 0, 0x5e, 0, 0, 0xfb],
            &udp(0x45, 0, [224, 0, 0, 251], MDNS, &[0; 40]),
            60,
        ),
        frame([0x33, 0x33, 0, 0, 0, 0xfb], &mdns6(), 60),
        frame([0x33, 0x33, 0, 0, 0, 1], &advertisement(), 60),
    ];
    for frame in &to_everyone {
        scene.send(frame, 1)?;
        ears.have_heard(frame, &everyone(&scene, Heard::by_group(1)))?;
        expected.pass += 1;
    }
    scene.counted(expected)?;
    attached.stop()
}

pub fn what_is_switched_off_is_not_done(wire: Wire, vid: u16, ingress: &'static str) -> Result<()> {
    let scene = Scene::new(wire, vid, ingress, 2)?;
    // Requests that are not steered go to everyone, and have their share of the limit.
    let attached = scene.attach(&["--steer", "off", "--storm-limit", "10000"])?;
    for receiver in scene.receivers.iter().chain([&scene.host]) {
        asked(&scene, receiver, 3, &everyone(&scene, Heard::by_group(3)))?;
    }
    let passed = |pass| Decisions {
        pass,
        ..Decisions::default()
    };
    scene.counted(passed(18))?;
    attached.stop()?;

    // Its counters are gone with it.
    let attached = scene.attach(&["--storm-limit", "0"])?;
    let mut ears = scene.listen()?;
    let absent = request(ABSENT);
    scene.send(&absent, 300)?;
    ears.have_heard(&absent, &everyone(&scene, Heard::by_group(300)))?;
    scene.counted(passed(300))?;
    attached.stop()
}

/// That everything reaches everyone, as without vlanfast.
fn everyone_hears(scene: &Scene) -> Result<()> {
    let before = Decisions::of(&scene.wire, scene.vid)?;
    let receiver = &scene.receivers[0];
    asked(scene, receiver, 3, &everyone(scene, Heard::by_group(3)))?;
    let mut ears = scene.listen()?;
    scene.send(&request(ABSENT), 20)?;
    ears.have_heard(&request(ABSENT), &everyone(scene, Heard::by_group(20)))?;
    let expected = Decisions {
        pass: before.pass + 26,
        ..before
    };
    scene.counted(expected)
}

pub fn a_process_that_is_killed_or_hangs_leaves_every_frame_alone(
    wire: Wire,
    vid: u16,
    ingress: &'static str,
) -> Result<()> {
    let scene = Scene::new(wire, vid, ingress, 2)?;
    let receiver = scene.receivers[0];
    let alone = only(0, &scene, Heard::alone(1));
    let attached = scene.attach(&["--storm-limit", "1"])?;
    asked(&scene, &receiver, 1, &alone)?;

    kill(attached.pid(), Signal::SIGSTOP)?;
    thread::sleep(VALIDITY + Duration::from_millis(200));
    everyone_hears(&scene)?;
    kill(attached.pid(), Signal::SIGCONT)?;
    let before = Decisions::of(&scene.wire, scene.vid)?;
    let start = Instant::now();
    while Decisions::of(&scene.wire, scene.vid)?.steer == before.steer {
        ensure!(
            start.elapsed() < Duration::from_secs(20),
            "it goes on, and nothing is steered"
        );
        thread::sleep(Duration::from_millis(100));
        scene.send(&request(receiver.address), 1)?;
    }

    attached.kill()?;
    thread::sleep(VALIDITY + Duration::from_millis(200));
    everyone_hears(&scene)?;
    let attached = scene.attach(&["--storm-limit", "1"])?;
    asked(&scene, &receiver, 1, &alone)?;
    attached.stop()
}

pub fn a_dry_run_counts_and_everyone_hears(
    wire: Wire,
    vid: u16,
    ingress: &'static str,
) -> Result<()> {
    let scene = Scene::new(wire, vid, ingress, 2)?;
    let attached = scene.attach(&["--dry-run", "--storm-limit", "1"])?;
    let by_group = everyone(&scene, Heard::by_group(3));
    asked(&scene, &scene.receivers[0], 3, &by_group)?;
    let mut ears = scene.listen()?;
    scene.send(&request(ABSENT), 20)?;
    ears.have_heard(&request(ABSENT), &everyone(&scene, Heard::by_group(20)))?;
    let found = Decisions::of(&scene.wire, scene.vid)?;
    // One passes, and one more each second.
    ensure!((1..=10).contains(&found.pass), "{found:?}");
    let expected = Decisions {
        pass: found.pass,
        steer: 6,
        storm: 20 - found.pass,
        ..Decisions::default()
    };
    scene.counted(expected)?;
    attached.stop()
}

pub fn a_disputed_address_is_asked_for_by_broadcast(
    wire: Wire,
    vid: u16,
    ingress: &'static str,
) -> Result<()> {
    let mut scene = Scene::new(wire, vid, ingress, 2)?;
    let first = scene.receivers[0];
    let second = Receiver {
        mac: [2, 0, 0, 0, 1, 9],
        ..first
    };
    scene.add(second)?;
    let attached = scene.attach(&[])?;
    let is_in_conflict = |row: &Value| row["conflict"] == true;
    eventually("conflict", &attached, |endpoints| {
        endpoints.iter().any(is_in_conflict)
    });
    let mut ears = scene.listen()?;
    let mut expected = Decisions::default();
    for frame in [request(first.address), solicit(first.address6)] {
        scene.send(&frame, 3)?;
        ears.have_heard(&frame, &everyone(&scene, Heard::by_group(3)))?;
        expected.pass += 3;
        expected.disputed += 3;
    }
    for receiver in [first, second] {
        ears.answers(&receiver, 3)?;
        ears.advertisements(&receiver, 3)?;
    }
    scene.counted(expected)?;

    // One gives way.
    scene.run(0, "ip addr flush dev eth0")?;
    eventually("peace", &attached, |endpoints| {
        !endpoints.iter().any(is_in_conflict)
    });
    asked(&scene, &second, 3, &only(2, &scene, Heard::alone(3)))?;
    expected.steer += 6;
    scene.counted(expected)?;
    attached.stop()
}

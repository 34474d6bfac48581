//! `--shed` on live trunks.

use std::{thread, time::Duration};

use anyhow::{Result, ensure};

use crate::{
    capture::Packets,
    messages::{NOBODY, SENDER, arp},
    packet::{BROADCAST, frame, tag},
    scene::{Decisions, Scene, Receiver},
    topology::{WIRE, Wire},
};

/// A VLAN for which the host has no device.
const ELSEWHERE: u16 = 99;

/// An ARP request by unicast, which whoever takes it answers.
fn to(mac: [u8; 6], receiver: &Receiver) -> Vec<u8> {
    frame(mac, &arp(1, SENDER, receiver.address), 60)
}

/// What has to arrive, arrives: the receivers answer.
fn receivers_answer(scene: &Scene) -> Result<u64> {
    let mut ears = scene.listen()?;
    let receivers = scene.receivers.iter().chain([&scene.host]);
    for receiver in receivers.clone() {
        scene.send(&to(receiver.mac, receiver), 2)?;
        ears.answers(receiver, 2)?;
    }
    Ok(2 * receivers.count() as u64)
}

/// A capture on the trunk, as tcpdump opens it; until that is taken in, nothing is shed.
fn capture(scene: &Scene) -> Result<Packets> {
    let capture = Packets::open(&scene.wire.host.path(), &scene.wire.trunk, true)?.promiscuous()?;
    thread::sleep(Duration::from_millis(500));
    Ok(capture)
}

/// That a capture on the trunk has seen of some frames what is left where it reads.
fn is_shed_from(
    capture: &Packets,
    scene: &Scene,
    count: usize,
    is_one: impl Fn(&[u8]) -> bool,
) -> Result<()> {
    let frames = capture.incoming()?;
    let seen = frames.iter().filter(|frame| is_one(frame)).count();
    let expected = if scene.is_before_captures() { 0 } else { count };
    ensure!(
        seen == expected,
        "a capture sees {seen} frames instead of {expected}"
    );
    Ok(())
}

pub fn frames_of_vlans_without_a_device_are_shed(
    wire: Wire,
    vid: u16,
    ingress: &'static str,
) -> Result<()> {
    let scene = Scene::new(wire, vid, ingress, 2)?;
    let attached = scene.attach(&["--shed", "vlan"])?;
    let on_the_trunk = capture(&scene)?;
    let tagged = Packets::open(&scene.wire.router.path(), WIRE, false)?;
    for mac in [BROADCAST, scene.host.mac, NOBODY] {
        let rest = [&tag(0, ELSEWHERE)[..], &[0x88, 0xb5, 0x53]].concat();
        let frame = frame(mac, &rest, 64);
        (0..5).try_for_each(|_| tagged.send(&frame))?;
    }
    // A VLAN's own nobody is no VLAN without a device.
    scene.send(&to(NOBODY, &scene.host), 3)?;
    let pass = receivers_answer(&scene)? + 3;
    scene.counted(Decisions {
        pass,
        ..Decisions::default()
    })?;
    let shed = Decisions::of(&scene.wire, ELSEWHERE)?;
    let expected = Decisions {
        shed_vlan: 15,
        ..Decisions::default()
    };
    ensure!(shed == expected, "{shed:?}");
    // Packet sockets show a frame without its tag.
    is_shed_from(&on_the_trunk, &scene, 15, |frame| {
        frame[12..15] == [0x88, 0xb5, 0x53]
    })?;
    attached.stop()
}

pub fn frames_for_a_mac_that_nobody_has_are_shed(
    wire: Wire,
    vid: u16,
    ingress: &'static str,
) -> Result<()> {
    let scene = Scene::new(wire, vid, ingress, 2)?;
    let attached = scene.attach(&["--shed", "mac"])?;
    let on_the_trunk = capture(&scene)?;
    scene.send(&to(NOBODY, &scene.host), 5)?;
    // An untagged frame may have had a tag that the hook was not shown.
    let shed = if vid == 0 { 0 } else { 5 };
    let pass = receivers_answer(&scene)? + 5 - shed;
    scene.counted(Decisions {
        pass,
        shed_mac: shed,
        ..Decisions::default()
    })?;
    if vid != 0 {
        is_shed_from(&on_the_trunk, &scene, 5, |frame| frame[..6] == NOBODY)?;
    }
    attached.stop()
}

//! `--shed` on live trunks.

use std::{thread, time::Duration};

use anyhow::{Result, ensure};

use crate::{
    fixtures::{
        one_vlan::{Addresses, OneVlan},
        vlan_counts::VlanCounts,
    },
    net::{
        capture::Packets,
        messages::{NOBODY, SENDER, arp},
        packet::{BROADCAST, frame, tag},
        topology::{WIRE, Wire},
    },
};

/// A VLAN that has no device on the host.
const ELSEWHERE: u16 = 99;

/// Builds a unicast ARP request, which every receiver of the frame answers.
fn to(mac: [u8; 6], receiver: &Addresses) -> Vec<u8> {
    frame(mac, &arp(1, SENDER, receiver.address), 60)
}

/// Frames for an endpoint still arrive: the endpoints answer.
fn receivers_answer(vlan: &OneVlan) -> Result<u64> {
    let mut ears = vlan.listen()?;
    let receivers = vlan.endpoints.iter().chain([&vlan.host]);
    for receiver in receivers.clone() {
        vlan.send(&to(receiver.mac, receiver), 2)?;
        ears.answers(receiver, 2)?;
    }
    Ok(2 * receivers.count() as u64)
}

/// Opens a capture on the trunk as tcpdump does; nothing is shed until the daemon has seen it.
fn capture(vlan: &OneVlan) -> Result<Packets> {
    let capture = Packets::open(&vlan.wire.host.path(), &vlan.wire.trunk, true)?.promiscuous()?;
    thread::sleep(Duration::from_millis(500));
    Ok(capture)
}

/// Checks that a capture on the trunk has seen the frames that remain at the point where it reads.
fn is_shed_from(
    capture: &Packets,
    vlan: &OneVlan,
    count: usize,
    is_one: impl Fn(&[u8]) -> bool,
) -> Result<()> {
    let frames = capture.incoming()?;
    let seen = frames.iter().filter(|frame| is_one(frame)).count();
    let expected = if vlan.is_before_captures() { 0 } else { count };
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
    let vlan = OneVlan::new(wire, vid, ingress, 2)?;
    let attached = vlan.attach(&["--shed", "vlan"])?;
    let on_the_trunk = capture(&vlan)?;
    let tagged = Packets::open(&vlan.wire.router.path(), WIRE, false)?;
    for mac in [BROADCAST, vlan.host.mac, NOBODY] {
        let rest = [&tag(0, ELSEWHERE)[..], &[0x88, 0xb5, 0x53]].concat();
        let frame = frame(mac, &rest, 64);
        (0..5).try_for_each(|_| tagged.send(&frame))?;
    }
    // A MAC without a receiver on a VLAN is not the same case as a VLAN without a device.
    vlan.send(&to(NOBODY, &vlan.host), 3)?;
    let pass = receivers_answer(&vlan)? + 3;
    vlan.counted(VlanCounts {
        pass,
        ..VlanCounts::default()
    })?;
    let shed = VlanCounts::of(&vlan.wire, ELSEWHERE)?;
    let expected = VlanCounts {
        shed_vlan: 15,
        ..VlanCounts::default()
    };
    ensure!(shed == expected, "{shed:?}");
    // Packet sockets show a frame without its tag.
    is_shed_from(&on_the_trunk, &vlan, 15, |frame| {
        frame[12..15] == [0x88, 0xb5, 0x53]
    })?;
    attached.stop()
}

pub fn frames_for_a_mac_that_nobody_has_are_shed(
    wire: Wire,
    vid: u16,
    ingress: &'static str,
) -> Result<()> {
    let vlan = OneVlan::new(wire, vid, ingress, 2)?;
    let attached = vlan.attach(&["--shed", "mac"])?;
    let on_the_trunk = capture(&vlan)?;
    vlan.send(&to(NOBODY, &vlan.host), 5)?;
    // An untagged frame may have had a tag that the hook could not see.
    let shed = if vid == 0 { 0 } else { 5 };
    let pass = receivers_answer(&vlan)? + 5 - shed;
    vlan.counted(VlanCounts {
        pass,
        shed_mac: shed,
        ..VlanCounts::default()
    })?;
    if vid != 0 {
        is_shed_from(&on_the_trunk, &vlan, 5, |frame| frame[..6] == NOBODY)?;
    }
    attached.stop()
}

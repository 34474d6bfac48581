//! What a shortcut between two VLANs costs that looks up, rewrites and redirects, and asks for nothing else.

use anyhow::{Context, Result};
use aya::{
    Ebpf,
    maps::HashMap,
    programs::{SchedClassifier, TcAttachType},
};
use vlanfast_tests::net::{namespace::Netns, topology::Wire};

use crate::{
    generator,
    netns::{self, Inside},
};

/// The devices on whose egress the program is attached.
#[derive(Clone, Copy)]
pub enum Devices {
    Trunk,
    Parents,
}

/// A program that redirects every packet of one VLAN to the other, as long as this lives.
pub struct BareShortcut(#[expect(dead_code, reason = "it holds what is attached")] Ebpf);

impl BareShortcut {
    /// Attaches the program between two containers, each with its VLAN.
    pub fn new(wire: &Wire, devices: Devices, ends: [(u16, &Netns); 2]) -> Result<Self> {
        let mut ebpf = generator::load()?;
        let parent = |vid: u16| format!("{}.{vid}", wire.trunk);
        let map = ebpf.map_mut("NEXT_HOPS").context("no map NEXT_HOPS")?;
        let mut redirects = HashMap::<_, u32, [u8; 16]>::try_from(map)?;
        let [near, far] = ends;
        for ((from, _), (to, receiver)) in [(near, far), (far, near)] {
            let device = netns::ifindex(&wire.host, &parent(to))?;
            let mut entry = [0; 16];
            entry[..4].copy_from_slice(&device.to_ne_bytes());
            entry[4..10].copy_from_slice(&receiver.mac("eth0")?);
            entry[10..].copy_from_slice(&wire.host.mac(&parent(to))?);
            let key = match devices {
                Devices::Trunk => from.into(),
                Devices::Parents => netns::ifindex(&wire.host, &parent(from))?,
            };
            redirects.insert(key, entry, 0)?;
        }
        let devices = match devices {
            Devices::Trunk => vec![wire.trunk.clone()],
            Devices::Parents => ends.map(|(vid, _)| parent(vid)).to_vec(),
        };
        let program: &mut SchedClassifier = ebpf
            .program_mut("bare_shortcut")
            .context("no program bare_shortcut")?
            .try_into()?;
        program.load()?;
        let _inside = Inside::enter(&wire.host)?;
        for device in devices {
            program.attach(&device, TcAttachType::Egress)?;
        }
        Ok(Self(ebpf))
    }
}

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
    place::{self, Inside},
};

/// On what leaves which devices the program is.
#[derive(Clone, Copy)]
pub enum Devices {
    Trunk,
    Parents,
}

/// A program that has every packet of one VLAN received on the other. Dropped, it is gone.
pub struct Bare(#[expect(dead_code, reason = "it holds what is attached")] Ebpf);

impl Bare {
    /// Between a container on one VLAN and one on another.
    pub fn new(wire: &Wire, devices: Devices, ends: [(u16, &Netns); 2]) -> Result<Self> {
        let mut ebpf = generator::load()?;
        let parent = |vid: u16| format!("{}.{vid}", wire.trunk);
        let map = ebpf.map_mut("NEXT_HOPS").context("no map NEXT_HOPS")?;
        let mut ways = HashMap::<_, u32, [u8; 16]>::try_from(map)?;
        let [near, far] = ends;
        for ((from, _), (to, receiver)) in [(near, far), (far, near)] {
            let device = place::ifindex(&wire.host, &parent(to))?;
            let mut way = [0; 16];
            way[..4].copy_from_slice(&device.to_ne_bytes());
            way[4..10].copy_from_slice(&receiver.mac("eth0")?);
            way[10..].copy_from_slice(&wire.host.mac(&parent(to))?);
            let key = match devices {
                Devices::Trunk => from.into(),
                Devices::Parents => place::ifindex(&wire.host, &parent(from))?,
            };
            ways.insert(key, way, 0)?;
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

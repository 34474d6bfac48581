//! Programs on what leaves the VLANs' own devices: from there the shortcut is shorter than from the trunk,
//! whose program takes every packet that comes so far, and is enough by itself.
//!
//! Nothing of it is pinned: the links are this process's, and end with it however it ends.

use std::collections::BTreeMap;

use anyhow::{Context, anyhow};
use aya::{
    Ebpf,
    maps::{HashMap, MapData},
    programs::{
        LinkOrder, TcAttachType,
        tc::{SchedClassifierLinkId, TcAttachOptions},
    },
};
use vlanfast_common::Vid;

use crate::datapath::{kernel, load, tables};

const DEVICES: &str = "DEVICES";

/// The devices that have a program, by ifindex. Dropped, they have none.
pub struct Parents {
    ebpf: Ebpf,
    devices: HashMap<MapData, u32, u32>,
    links: BTreeMap<u32, SchedClassifierLinkId>,
}

impl Parents {
    /// Loads the program, before anything changes.
    pub fn prepare(ebpf: &mut Ebpf) -> anyhow::Result<()> {
        match kernel::has_tcx() {
            true => load::tc(ebpf, load::PARENT).map(drop),
            false => Ok(()),
        }
    }

    /// For an object whose maps are filled. `None` before tcx (Linux 6.6): a clsact qdisc on every device would
    /// drop what is sent while it is made.
    pub fn new(mut ebpf: Ebpf) -> anyhow::Result<Option<Self>> {
        if !kernel::has_tcx() {
            return Ok(None);
        }
        let map = ebpf.take_map(DEVICES);
        let devices = map.ok_or_else(|| anyhow!("the BPF object has no map {DEVICES}"))?;
        Ok(Some(Self {
            ebpf,
            devices: devices.try_into()?,
            links: BTreeMap::new(),
        }))
    }

    /// Whether a device has one.
    pub fn has(&self, device: u32) -> bool {
        self.links.contains_key(&device)
    }

    /// Has these devices, each the device of a VLAN, and no others with a program.
    pub fn follow(&mut self, wanted: &BTreeMap<u32, (Vid, &str)>) -> anyhow::Result<()> {
        let gone = self
            .links
            .extract_if(.., |device, _| !wanted.contains_key(device));
        for (device, link) in gone {
            // One that is gone itself has taken it along.
            let _ = load::tc(&mut self.ebpf, load::PARENT)?.detach(link);
            tables::remove(&mut self.devices, DEVICES, &[device])?;
        }
        for (&device, &(vid, name)) in wanted {
            if self.links.contains_key(&device) {
                continue;
            }
            let vid = u32::from(vid.get());
            self.devices
                .insert(device, vid, 0)
                .with_context(|| format!("failed to write {DEVICES}"))?;
            let program = load::tc(&mut self.ebpf, load::PARENT)?;
            let first = TcAttachOptions::TcxOrder(LinkOrder::first());
            let link = program
                .attach_with_options(name, TcAttachType::Egress, first)
                .with_context(|| format!("failed to attach to egress of {name}"))?;
            self.links.insert(device, link);
        }
        Ok(())
    }
}

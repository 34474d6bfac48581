//! Programs on what leaves the VLANs' own devices: from there the shortcut is shorter than from the trunk,
//! whose program takes every packet that comes so far, and is enough by itself.
//!
//! Nothing of it is pinned: the links are this process's, and end with it however it ends.

use std::collections::BTreeMap;

use anyhow::{Context, anyhow, ensure};
use aya::{
    Ebpf,
    maps::{HashMap, MapData},
    programs::{
        LinkOrder, Program, TcAttachType,
        tc::{SchedClassifierLinkId, TcAttachOptions},
    },
};
use vlanfast_common::{Direction, Vid};

use crate::datapath::{kernel, load, tables};

const DEVICES: &str = "DEVICES";

/// The devices that have a program. Dropped, they have none.
pub struct Parents {
    ebpf: Ebpf,
    /// The program's, as the kernel numbers them.
    id: u32,
    devices: HashMap<MapData, u32, u32>,
    /// By ifindex.
    attached: BTreeMap<u32, Attached>,
}

struct Attached {
    vid: Vid,
    link: SchedClassifierLinkId,
}

impl Parents {
    /// Loads the program, before anything changes; whether this kernel can have it.
    ///
    /// Before tcx (Linux 6.6), a clsact qdisc on every device would drop what is sent while it is made. And a
    /// realtime kernel may run one packet's program amid another's, which what is remembered is not made for.
    pub fn prepare(ebpf: &mut Ebpf) -> anyhow::Result<bool> {
        let can = kernel::has_tcx() && !kernel::is_realtime();
        if can {
            load::tc(ebpf, load::PARENT)?;
        }
        Ok(can)
    }

    /// For an object that was prepared, and whose other programs are attached: what they are attached by is
    /// pinned, and our handles on them end here.
    pub fn new(mut ebpf: Ebpf) -> anyhow::Result<Self> {
        let id = load::tc(&mut ebpf, load::PARENT)?.info()?.id();
        for (name, program) in ebpf.programs_mut() {
            // An error says that it was not loaded.
            let _ = match program {
                Program::SchedClassifier(program) if name != load::PARENT => program.unload(),
                Program::Xdp(program) => program.unload(),
                _ => Ok(()),
            };
        }
        let map = ebpf.take_map(DEVICES);
        let devices = map.ok_or_else(|| anyhow!("the BPF object has no map {DEVICES}"))?;
        Ok(Self {
            ebpf,
            id,
            devices: devices.try_into()?,
            attached: BTreeMap::new(),
        })
    }

    /// Whether a device has one.
    pub fn has(&self, device: u32) -> bool {
        self.attached.contains_key(&device)
    }

    /// Lets go of those that somebody has taken off; whether there were any.
    pub fn doubt(&mut self) -> bool {
        let devices = self.attached.keys().copied();
        let gone: Vec<_> = devices.filter(|device| !self.is_on(*device)).collect();
        gone.iter().for_each(|device| self.take_off(*device));
        !gone.is_empty()
    }

    /// Has these devices, each by its name and the device of a VLAN, and no others with a program. Goes on where
    /// one fails, and reports the first failure.
    pub fn follow(&mut self, wanted: &BTreeMap<u32, (Vid, &str)>) -> anyhow::Result<()> {
        let is_wanted = |device: &u32, attached: &Attached| {
            let vid = wanted.get(device).map(|(vid, _)| *vid);
            vid == Some(attached.vid)
        };
        let attached = self.attached.iter();
        let others = attached.filter(|(device, attached)| !is_wanted(device, attached));
        let others: Vec<_> = others.map(|(device, _)| *device).collect();
        others.iter().for_each(|device| self.take_off(*device));
        let mut first = Ok(());
        for (&device, &(vid, name)) in wanted {
            if !self.has(device) {
                let put = self.put(device, vid, name);
                if put.is_err() {
                    self.take_off(device);
                }
                first = first.and(put);
            }
        }
        first
    }

    fn put(&mut self, device: u32, vid: Vid, name: &str) -> anyhow::Result<()> {
        let number = u32::from(vid.get());
        self.devices
            .insert(device, number, 0)
            .with_context(|| format!("failed to write {DEVICES}"))?;
        // Behind what others have there: it may be theirs to drop.
        let last = TcAttachOptions::TcxOrder(LinkOrder::last());
        let link = load::tc(&mut self.ebpf, load::PARENT)?
            .attach_with_options(name, TcAttachType::Egress, last)
            .with_context(|| format!("failed to attach to egress of {name}"))?;
        self.attached.insert(device, Attached { vid, link });
        // By its name, which another may have by now.
        ensure!(self.is_on(device), "{name} is another device now");
        Ok(())
    }

    fn is_on(&self, device: u32) -> bool {
        let programs = kernel::tcx_programs(device, Direction::Tx);
        programs.is_ok_and(|programs| programs.contains(&self.id))
    }

    fn take_off(&mut self, device: u32) {
        // A device that is gone has taken its own along; and what is not there need not be taken off.
        if let Some(attached) = self.attached.remove(&device)
            && let Ok(program) = load::tc(&mut self.ebpf, load::PARENT)
        {
            let _ = program.detach(attached.link);
        }
        let _ = tables::remove(&mut self.devices, DEVICES, &[device]);
    }
}

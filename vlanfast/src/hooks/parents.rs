//! Programs on what leaves the VLANs' own devices: from there the shortcut is shorter than from the trunk,
//! whose program takes every packet that comes so far, and is enough by itself.
//!
//! Nothing of it is pinned: the links are this process's, and end with it however it ends.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd, OwnedFd},
    time::Instant,
};

use anyhow::{Context, anyhow};
use aya::{
    Ebpf,
    maps::{HashMap, MapData},
    programs::ProgramFd,
};
use vlanfast_common::{Direction, Vid};

use crate::{
    hooks::{bpf, bpf::AttachPoint, kernel, repairs::Repairs},
    maps::{entries, load},
    state::name::Name,
};

const DEVICES: &str = "DEVICES";

/// The devices that have a program. Dropped, they have none.
pub struct Parents {
    program: ProgramFd,
    /// The program's, as the kernel numbers them.
    id: u32,
    devices: HashMap<MapData, u32, u32>,
    /// By ifindex.
    attached: BTreeMap<u32, Attached>,
    /// Of devices that somebody took it off, by ifindex.
    repairs: BTreeMap<u32, Repairs>,
}

struct Attached {
    vid: Vid,
    /// Closed, it takes the program off.
    _link: OwnedFd,
}

impl Parents {
    /// Loads the program, before anything changes; whether this kernel can have it.
    ///
    /// Before tcx (Linux 6.6), a clsact qdisc on every device would drop what is sent while it is made. And a
    /// realtime kernel may run one packet's program amid another's, which what is remembered is not made for.
    pub fn prepare(ebpf: &mut Ebpf) -> anyhow::Result<bool> {
        let can = bpf::has_tcx() && !kernel::is_realtime();
        if can {
            load::tc(ebpf, load::PARENT)?;
        }
        Ok(can)
    }

    /// For an object that was prepared, and whose other programs are attached: what they are attached by is
    /// pinned, and our handles on them end here.
    pub fn new(mut ebpf: Ebpf) -> anyhow::Result<Self> {
        let program = load::tc(&mut ebpf, load::PARENT)?;
        let (program, id) = (program.fd()?.try_clone()?, program.info()?.id());
        let map = ebpf.take_map(DEVICES);
        let devices = map.ok_or_else(|| anyhow!("the BPF object has no map {DEVICES}"))?;
        Ok(Self {
            program,
            id,
            devices: devices.try_into()?,
            attached: BTreeMap::new(),
            repairs: BTreeMap::new(),
        })
    }

    /// Whether a device has one.
    pub fn has(&self, device: u32) -> bool {
        self.attached.contains_key(&device)
    }

    /// Lets go of those that somebody has taken off; whether there are any to put back, or to do without.
    pub fn doubt(&mut self) -> bool {
        let now = Instant::now();
        let devices = self.attached.keys().copied();
        let gone: Vec<_> = devices.filter(|device| !self.is_on(*device)).collect();
        for device in &gone {
            log::warn!(
                "somebody took our program off egress of device {device}; the shortcut begins at the trunk there"
            );
            self.take_off(*device);
            self.repairs.entry(*device).or_default().tried(now);
        }
        let mut waiting = self.repairs.iter();
        let are_due = waiting.any(|(device, repairs)| !self.has(*device) && repairs.are_due(now));
        !gone.is_empty() || are_due
    }

    /// Whether a device may have one: it has never been taken off, or not for some time.
    fn may_have(&self, device: u32) -> bool {
        let repairs = self.repairs.get(&device);
        repairs.is_none_or(|repairs| repairs.are_due(Instant::now()))
    }

    /// Has these devices, each by its name and the device of a VLAN, and no others with a program. Goes on where
    /// one fails, and reports the first failure.
    pub fn follow(&mut self, wanted: &BTreeMap<u32, (Vid, &Name)>) -> anyhow::Result<()> {
        let is_wanted = |device: &u32, attached: &Attached| {
            let vid = wanted.get(device).map(|(vid, _)| *vid);
            vid == Some(attached.vid)
        };
        let attached = self.attached.iter();
        let others = attached.filter(|(device, attached)| !is_wanted(device, attached));
        let others: Vec<_> = others.map(|(device, _)| *device).collect();
        others.iter().for_each(|device| self.take_off(*device));
        self.repairs.retain(|device, _| wanted.contains_key(device));
        let mut first = Ok(());
        for (&device, &(vid, name)) in wanted {
            if !self.has(device) && self.may_have(device) {
                let put = self.put(device, vid, name);
                if put.is_err() {
                    self.take_off(device);
                }
                first = first.and(put);
            }
        }
        first
    }

    fn put(&mut self, device: u32, vid: Vid, name: &Name) -> anyhow::Result<()> {
        let number = u32::from(vid.get());
        self.devices
            .insert(device, number, 0)
            .with_context(|| format!("failed to write {DEVICES}"))?;
        // Behind what others have there: it may be theirs to drop.
        let place = AttachPoint::TcxLast(Direction::Tx);
        let link = bpf::create_link(self.program.as_fd(), device, place)
            .with_context(|| format!("failed to attach to egress of {name}"))?;
        self.attached.insert(device, Attached { vid, _link: link });
        Ok(())
    }

    fn is_on(&self, device: u32) -> bool {
        let programs = bpf::tcx_programs(device, Direction::Tx);
        // One that can't be asked is not one without.
        programs.map_or(true, |programs| programs.contains(&self.id))
    }

    fn take_off(&mut self, device: u32) {
        self.attached.remove(&device);
        let _ = entries::remove(&mut self.devices, DEVICES, &[device]);
    }
}

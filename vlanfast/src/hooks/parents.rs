//! The programs on egress of the VLANs' own devices. A shortcut that begins there skips the 8021q driver and the trunk;
//! without these programs it begins at the trunk, which is enough for it to work.
//!
//! These links are not pinned. They belong to this process and end with it, even after a kill -9.

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
    hooks::{backoff::RepairBackoff, bpf_syscall, bpf_syscall::AttachPoint, requirements},
    maps::{entries, load},
    state::name::Name,
};

const DEVICES: &str = "DEVICES";

/// The VLAN devices with our program. Dropping this detaches it from all of them.
pub struct Parents {
    program: ProgramFd,
    /// The kernel's id of the program.
    id: u32,
    devices: HashMap<MapData, u32, u32>,
    /// By ifindex.
    attached: BTreeMap<u32, ParentLink>,
    /// The devices that somebody took the program off, by ifindex.
    backoff: BTreeMap<u32, RepairBackoff>,
}

/// Our program on the device of a VLAN.
struct ParentLink {
    vid: Vid,
    /// Closing it detaches the program.
    _link: OwnedFd,
}

impl Parents {
    /// Loads the program, before anything is changed. Returns whether this kernel can use it.
    ///
    /// Before tcx (Linux 6.6) each device would need a clsact qdisc, and adding one drops outgoing packets. A realtime
    /// kernel may run the program for one packet in the middle of another's, which the cache of routes is not made for.
    pub fn prepare(ebpf: &mut Ebpf) -> anyhow::Result<bool> {
        let can = bpf_syscall::has_tcx() && !requirements::is_realtime();
        if can {
            load::tc(ebpf, load::PARENT)?;
        }
        Ok(can)
    }

    /// Takes over an object that was prepared and whose other programs are attached and pinned. Our own handles on
    /// those programs are closed here.
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
            backoff: BTreeMap::new(),
        })
    }

    /// Whether a device has our program.
    pub fn has(&self, device: u32) -> bool {
        self.attached.contains_key(&device)
    }

    /// Drops the links of devices that somebody took the program off. Returns whether the tables have to change: a
    /// device has lost its program, or one is due to get it back.
    pub fn drop_detached(&mut self) -> bool {
        let now = Instant::now();
        let devices = self.attached.keys().copied();
        let gone: Vec<_> = devices.filter(|device| !self.is_on(*device)).collect();
        for device in &gone {
            log::warn!(
                "somebody took our program off egress of device {device}; the shortcut begins at the trunk for that \
                 VLAN"
            );
            self.take_off(*device);
            self.backoff.entry(*device).or_default().record(now);
        }
        let mut waiting = self.backoff.iter();
        let is_due = waiting.any(|(device, backoff)| !self.has(*device) && backoff.is_due(now));
        !gone.is_empty() || is_due
    }

    /// Whether a device may get the program: nobody has taken it off there, or the pause after that is over.
    fn may_have(&self, device: u32) -> bool {
        let backoff = self.backoff.get(&device);
        backoff.is_none_or(|backoff| backoff.is_due(Instant::now()))
    }

    /// Attaches the program to these devices, given with their VLANs and names, and detaches it from all others. If one
    /// device fails, it goes on with the rest and returns the first error.
    pub fn follow(&mut self, wanted: &BTreeMap<u32, (Vid, &Name)>) -> anyhow::Result<()> {
        let is_wanted = |device: &u32, attached: &ParentLink| {
            let vid = wanted.get(device).map(|(vid, _)| *vid);
            vid == Some(attached.vid)
        };
        let attached = self.attached.iter();
        let others = attached.filter(|(device, attached)| !is_wanted(device, attached));
        let others: Vec<_> = others.map(|(device, _)| *device).collect();
        others.iter().for_each(|device| self.take_off(*device));
        self.backoff.retain(|device, _| wanted.contains_key(device));
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
        // Programs of others run first: what they drop must not take the shortcut.
        let point = AttachPoint::TcxLast(Direction::Tx);
        let link = bpf_syscall::create_link(self.program.as_fd(), device, point)
            .with_context(|| format!("failed to attach to egress of {name}"))?;
        self.attached
            .insert(device, ParentLink { vid, _link: link });
        Ok(())
    }

    fn is_on(&self, device: u32) -> bool {
        let programs = bpf_syscall::tcx_programs(device, Direction::Tx);
        // A device that can't be read counts as one that has the program.
        programs.map_or(true, |programs| programs.contains(&self.id))
    }

    fn take_off(&mut self, device: u32) {
        self.attached.remove(&device);
        let _ = entries::remove(&mut self.devices, DEVICES, &[device]);
    }
}

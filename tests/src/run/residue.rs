//! Checks that vlanfast leaves a trunk as it was before. It judges only what the tests created: another vlanfast may
//! run on the same machine, and start or end meanwhile.
//!
//! A BPF program outlives its process only by a pin or at a hook. Both are searched for where this test could have
//! left them: among the pins of the trunk and of its namespace, and on the trunk and the devices above it. In
//! addition, the ids of all programs and maps that the test's processes held must be gone.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::UdpSocket,
    os::{fd::AsRawFd, unix::fs::MetadataExt},
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use aya::{
    maps::loaded_maps,
    programs::{SchedClassifier, TcAttachType, loaded_programs},
};
use serde_json::Value;

use crate::{
    net::namespace::{Netns, in_netns},
    run::{
        pins::{PINS, is_pinned},
        require::kernel_at_least,
    },
};

/// Identifies a network namespace by the inode of its file.
type NetnsInode = u64;

/// Ids of programs and of maps.
#[derive(Clone, Debug, Default)]
struct Ids {
    programs: BTreeSet<u32>,
    maps: BTreeSet<u32>,
}

/// The ids that this test's processes held, by namespace. The kernel reuses an id only after it has used all others.
static HELD: Mutex<BTreeMap<NetnsInode, Ids>> = Mutex::new(BTreeMap::new());

/// Remembers the maps of a process and the programs that use them, so that a [`Residue`] of its namespace finds them
/// later. Does nothing if the process has ended.
pub fn remember(pid: u32) {
    let Ok(namespace) = fs::metadata(format!("/proc/{pid}/ns/net")) else {
        return;
    };
    let mut ids = Ids::default();
    let entries = fs::read_dir(format!("/proc/{pid}/fdinfo"));
    for entry in entries.into_iter().flatten().flatten() {
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        for line in text.lines() {
            let number = |name| line.strip_prefix(name)?.trim().parse::<u32>().ok();
            ids.programs.extend(number("prog_id:"));
            ids.maps.extend(number("map_id:"));
        }
    }
    // After attaching, a process only keeps the maps open that its programs use, and not the programs.
    for program in loaded_programs().flatten() {
        let maps = program.map_ids().ok().flatten().unwrap_or_default();
        if ids.programs.contains(&program.id()) || maps.iter().any(|map| ids.maps.contains(map)) {
            ids.programs.insert(program.id());
            ids.maps.extend(maps);
        }
    }
    let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    let known = held.entry(namespace.ino()).or_default();
    known.programs.append(&mut ids.programs);
    known.maps.append(&mut ids.maps);
}

/// A description of everything that vlanfast could have left on a trunk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Residue(BTreeSet<String>);

impl Residue {
    /// Records programs, maps, pins, qdiscs, filters, tcx and XDP programs, and offloads.
    pub fn of(host: &Netns, trunk: &str) -> Result<Self> {
        let mut found = BTreeSet::new();
        found.extend(still_loaded(fs::metadata(host.path())?.ino()));
        found.extend(pins_of(host, trunk)?);
        found.extend(tcx(host, trunk)?);
        for line in [
            format!("tc qdisc show dev {trunk}"),
            format!("tc filter show dev {trunk} ingress 2>&1 || true"),
            format!("tc filter show dev {trunk} egress 2>&1 || true"),
            format!("ip -d link show {trunk} | grep -o 'xdp.*' || true"),
            format!("ethtool -k {trunk}"),
        ] {
            found.insert(host.run(&line)?);
        }
        Ok(Self(found))
    }

    /// Waits until the state is the earlier one again: the kernel frees programs and maps with a delay.
    pub fn wait_until_as_before(&self, host: &Netns, trunk: &str) -> Result<()> {
        let start = Instant::now();
        loop {
            let now = Self::of(host, trunk)?;
            let (more, less) = (now.beyond(self), self.beyond(&now));
            // Programs and maps from an earlier test may still be in the course of being freed.
            let is_kept = |what: &&str| !what.starts_with("map ") && !what.starts_with("program ");
            let less: Vec<_> = less.into_iter().filter(is_kept).collect();
            if more.is_empty() && less.is_empty() {
                return Ok(());
            }
            if start.elapsed() > Duration::from_secs(10) {
                bail!("left behind: {more:?}; gone: {less:?}");
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Returns the entries that this has and the other does not.
    pub fn beyond(&self, other: &Self) -> Vec<&str> {
        let missing = self.0.iter().filter(|what| !other.0.contains(*what));
        missing.map(String::as_str).collect()
    }
}

/// Returns the programs and maps of a namespace's processes that the kernel still has.
fn still_loaded(namespace: NetnsInode) -> Vec<String> {
    let held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    let held = held.get(&namespace).cloned().unwrap_or_default();
    let mut found = vec![];
    if !held.programs.is_empty() {
        let programs = loaded_programs().flatten();
        let ours = programs.filter(|program| held.programs.contains(&program.id()));
        found.extend(ours.map(|program| {
            let name = program.name_as_str().unwrap_or_default();
            format!("program {name} {}", program.id())
        }));
    }
    if !held.maps.is_empty() {
        let ours = loaded_maps()
            .flatten()
            .filter(|map| held.maps.contains(&map.id()));
        found.extend(ours.map(|map| {
            let name = map.name_as_str().unwrap_or_default();
            format!("map {name} {}", map.id())
        }));
    }
    found
}

/// Returns the pins of a trunk by its name, and all pins of a namespace that is the test's own.
fn pins_of(host: &Netns, trunk: &str) -> Result<Vec<String>> {
    let mut found = vec![];
    if is_pinned(trunk) {
        found.push(format!("pins of {trunk}"));
    }
    if fs::metadata(host.path())?.ino() == fs::metadata("/proc/self/ns/net")?.ino() {
        return Ok(found);
    }
    let prefix = format!("{}:", cookie(host)?);
    let entries = match fs::read_dir(PINS) {
        // Nothing has been pinned yet, or vlanfast has removed the directory with the last pins.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        entries => entries.with_context(|| format!("failed to read {PINS}"))?,
    };
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.starts_with(&prefix) {
            found.push(name);
        }
    }
    Ok(found)
}

/// Returns the prefix of the names of a namespace's pins (`SO_NETNS_COOKIE`, Linux 5.14).
fn cookie(netns: &Netns) -> Result<u64> {
    in_netns(&netns.path(), || {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        let mut cookie = 0u64;
        let mut length = size_of_val(&cookie) as u32;
        // SAFETY: the arguments are a buffer and its size.
        let result = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_NETNS_COOKIE,
                (&raw mut cookie).cast(),
                &raw mut length,
            )
        };
        let error = io::Error::last_os_error();
        ensure!(result == 0, "failed to read SO_NETNS_COOKIE: {error}");
        Ok(cookie)
    })
}

/// Returns the tcx programs of a trunk and of the devices on top of it. There are none before Linux 6.6.
fn tcx(host: &Netns, trunk: &str) -> Result<Vec<String>> {
    let links: Value = serde_json::from_str(&host.run("ip -j link show")?)?;
    let links = links.as_array().cloned().unwrap_or_default();
    let is_ours = |link: &&Value| link["ifname"] == trunk || link["link"] == trunk;
    let names = links.iter().filter(is_ours);
    let names = names.filter_map(|link| Some(link["ifname"].as_str()?.to_owned()));
    let names: Vec<_> = names.collect();
    in_netns(&host.path(), move || {
        let mut found = vec![];
        for (name, side) in names
            .iter()
            .flat_map(|name| [(name, TcAttachType::Ingress), (name, TcAttachType::Egress)])
        {
            if !kernel_at_least(6, 6) {
                continue;
            }
            let (_, programs) = SchedClassifier::query_tcx(name, side)?;
            found.extend(programs.iter().map(|program| {
                let program = program.name_as_str().unwrap_or_default();
                format!("tcx {program} on {name}, {side:?}")
            }));
        }
        Ok(found)
    })
}

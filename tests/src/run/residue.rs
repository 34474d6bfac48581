//! What a machine must look like after as before: everything of vlanfast's that no other process on it has, and the
//! trunk's qdiscs.

use std::{
    collections::BTreeSet,
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use aya::{
    maps::loaded_maps,
    programs::{ProgramInfo, loaded_programs},
};

use crate::{net::namespace::Netns, run::program::is_pinned};

/// A description of everything that vlanfast could have left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Residue(BTreeSet<String>);

const MAPS: [&str; 11] = [
    "COUNTERS",
    "SETTINGS",
    "STATUS",
    "VLANS",
    "ENDPOINTS",
    "NEIGHBORS",
    "ROUTES",
    "BUCKETS",
    "DEVICES",
    "SHORTCUT_CACHE",
    "AYA_LOGS",
];

impl Residue {
    /// Takes it down: programs, maps, links by their programs, pins, qdiscs, filters and XDP.
    pub fn of(host: &Netns, trunk: &str) -> Result<Self> {
        let mut found = BTreeSet::new();
        let others = Others::now();
        for program in loaded_programs().flatten() {
            if let Some(name) = program
                .name_as_str()
                .filter(|name| name.starts_with("vlanfast"))
                && !others.have_program(&program)
            {
                found.insert(format!("program {name} {}", program.id()));
            }
        }
        for map in loaded_maps().flatten() {
            if let Some(name) = map.name_as_str().filter(|name| MAPS.contains(name))
                && !others.0.contains(&map.id())
            {
                found.insert(format!("map {name} {}", map.id()));
            }
        }
        if is_pinned(trunk) {
            found.insert(format!("pins of {trunk}"));
        }
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

    /// Waits until nothing is left and nothing lacks: the kernel frees programs and maps after a while.
    pub fn wait_until_as_before(&self, host: &Netns, trunk: &str) -> Result<()> {
        let start = Instant::now();
        loop {
            let now = Self::of(host, trunk)?;
            let more: Vec<_> = now.0.difference(&self.0).collect();
            // Programs and maps of a test before this one may still have been there.
            let is_kept =
                |what: &&String| !what.starts_with("map ") && !what.starts_with("program ");
            let less: Vec<_> = self.0.difference(&now.0).filter(is_kept).collect();
            if more.is_empty() && less.is_empty() {
                return Ok(());
            }
            if start.elapsed() > Duration::from_secs(10) {
                bail!("left behind: {more:?}; gone: {less:?}");
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

/// The maps of every vlanfast that runs on this machine and that no test of ours started.
struct Others(BTreeSet<u32>);

impl Others {
    fn now() -> Self {
        let mut others = Self(BTreeSet::new());
        for pid in processes() {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            if name.starts_with("vlanfast") && !descends_from_us(pid) {
                others.0.extend(held(pid));
            }
        }
        if !others.0.is_empty() {
            // What its programs have beside what it holds itself.
            let programs: Vec<_> = loaded_programs().flatten().collect();
            for program in programs {
                if others.have_program(&program) {
                    others.0.extend(maps_of(&program));
                }
            }
        }
        others
    }

    fn have_program(&self, program: &ProgramInfo) -> bool {
        !self.0.is_empty() && maps_of(program).iter().any(|map| self.0.contains(map))
    }
}

fn maps_of(program: &ProgramInfo) -> Vec<u32> {
    program.map_ids().ok().flatten().unwrap_or_default()
}

fn processes() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let number = |entry: fs::DirEntry| entry.file_name().to_str()?.parse().ok();
    entries.filter_map(number).collect()
}

fn descends_from_us(mut pid: u32) -> bool {
    while pid > 1 {
        if pid == std::process::id() {
            return true;
        }
        // The parent comes second behind the name, which may have anything in it.
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let behind = stat.rsplit_once(')').map(|(_, rest)| rest);
        let parent = behind.and_then(|rest| rest.split_whitespace().nth(1));
        pid = parent.and_then(|parent| parent.parse().ok()).unwrap_or(0);
    }
    false
}

/// The ids of the maps that a process holds.
fn held(pid: u32) -> Vec<u32> {
    let entries = fs::read_dir(format!("/proc/{pid}/fdinfo"));
    let entries = entries.into_iter().flatten().flatten();
    let id = |entry: fs::DirEntry| {
        let text = fs::read_to_string(entry.path()).ok()?;
        let id = text.lines().find_map(|line| line.strip_prefix("map_id:"))?;
        id.trim().parse().ok()
    };
    entries.filter_map(id).collect()
}

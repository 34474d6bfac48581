//! What vlanfast takes of the machine before a packet has come.

use std::{
    fs,
    os::fd::{AsFd, AsRawFd},
    time::Instant,
};

use anyhow::{Context, Result};
use aya::{maps::MapInfo, programs::ProgramInfo};
use vlanfast_tests::{
    net::topology::Wire,
    run::{pins::pins, program::Attached},
};

use crate::{bench::Bench, contender::Contender, report};

/// The programs of each hook, in two runs: one of XDP and TC reads ingress.
pub fn programs(_: &mut Bench) -> Result<()> {
    for (contender, names) in [
        (Contender::Tc, &["vlanfast_rx", "vlanfast_tx"][..]),
        (Contender::Xdp, &["vlanfast_xdp"]),
    ] {
        let _site = contender.build()?;
        for name in names {
            let info = loaded(name).with_context(|| format!("the kernel has no program {name}"))?;
            for (column, value) in [
                ("BPF instructions", info.size_translated().unwrap_or(0) / 8),
                ("bytes of machine code", info.size_jitted()),
                (
                    "instructions the verifier walked",
                    info.verified_instruction_count().unwrap_or(0),
                ),
            ] {
                report::figure("programs", name, column, f64::from(value));
            }
        }
    }
    Ok(())
}

fn loaded(name: &str) -> Option<ProgramInfo> {
    let mut all = aya::programs::loaded_programs().flatten();
    all.find(|program| program.name_as_str() == Some(name))
}

pub fn daemon(_: &mut Bench) -> Result<()> {
    let table = "daemon";
    let wire = Wire::veth()?;
    let start = Instant::now();
    let arguments = ["--ingress", "tc", "--docker", "off", "--metrics", "off"];
    let attached = Attached::start(&wire.host, &wire.trunk, &arguments)?;
    let took = start.elapsed().as_secs_f64() * 1e3;
    let mut maps = 0;
    let directory = pins(&wire.trunk);
    for entry in fs::read_dir(&directory)
        .with_context(|| format!("failed to read {}", directory.display()))?
    {
        let entry = entry?;
        // Links and programs are pinned there too, in small letters.
        let is_map = |name: &str| !name.contains(|letter: char| letter.is_ascii_lowercase());
        if entry.file_name().to_str().is_some_and(is_map) {
            let fd = MapInfo::from_pin(entry.path())?.fd()?;
            let fd = fd.as_fd().as_raw_fd();
            maps += number(&format!("/proc/self/fdinfo/{fd}"), "memlock:")?;
        }
    }
    let resident = number(&format!("/proc/{}/status", attached.pid()), "VmRSS:")?;
    for (row, value) in [
        ("maps, kB", maps as f64 / 1024.0),
        ("the daemon's resident memory, kB", resident as f64),
        (
            "from its start to attached, ms of a CPU that runs 10⁹ instructions/s",
            took,
        ),
    ] {
        report::figure(table, row, "size", value);
    }
    attached.stop()
}

/// The number behind a word in a file of /proc.
fn number(path: &str, word: &str) -> Result<u64> {
    let text = fs::read_to_string(path).with_context(|| format!("failed to read {path}"))?;
    text.lines()
        .find_map(|line| {
            line.strip_prefix(word)?
                .split_whitespace()
                .next()?
                .parse()
                .ok()
        })
        .with_context(|| format!("{path} has no {word}"))
}

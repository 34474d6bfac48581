//! The BPF object, into the kernel.

use anyhow::{Context, anyhow};
use aya::{
    Ebpf, EbpfLoader,
    maps::{MapInfo, MapType},
    programs::{ProgramError, SchedClassifier, Xdp},
};
use vlanfast_common::{Counters, LAYOUT, Policy, Settings, Shortcut, Vlan};

use crate::{
    error::Error,
    maps::{tables, tables::Maps},
    pins::{COUNTERS, ENDPOINTS, FLOWS, NEIGHBORS, Pins, ROUTES, SETTINGS},
    state::plan::Capacity,
    stop,
};

/// Program names in the object. The kernel shows 15 characters.
pub const XDP: &str = "vlanfast_xdp";
pub const RX: &str = "vlanfast_rx";
pub const TX: &str = "vlanfast_tx";
pub const PARENT: &str = "vlanfast_parent";

static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("VLANFAST_OBJECT"));

/// The object that this binary carries.
pub fn object() -> &'static [u8] {
    OBJECT
}

/// Loads the maps, all new. `log_level` is aya-log's: 0 none, up to 5 for every frame.
pub fn load(policy: &Policy, log_level: u8) -> anyhow::Result<Ebpf> {
    loader(policy, &log_level)
        .load(object())
        .context("failed to load the BPF maps")
}

/// A loader that has set the programs' constants.
fn loader<'a>(policy: &'a Policy, log_level: &'a u8) -> EbpfLoader<'a> {
    let mut loader = EbpfLoader::new();
    loader
        .override_global(aya_log::LEVEL, log_level, true)
        .override_global("POLICY", policy, true);
    loader
}

/// Loads the maps for a trunk. What counts and what was noted goes on in the maps that are pinned, if
/// they are as this version has them; the tables are always new, for the caller to fill before the
/// programs that read them are attached. Changes nothing that others see.
pub fn adopt(
    pins: &Pins,
    capacity: Capacity,
    policy: &Policy,
    log_level: u8,
) -> anyhow::Result<(Ebpf, Maps)> {
    let mut loader = loader(policy, &log_level);
    loader
        .map_max_entries(ENDPOINTS, capacity.endpoints)
        .map_max_entries(NEIGHBORS, capacity.neighbors)
        .map_max_entries(ROUTES, capacity.routes)
        .map_max_entries(FLOWS, flows(policy));
    if fit(pins) {
        // The loader takes whatever is pinned there unseen, so it must have been looked at before.
        for name in [COUNTERS, SETTINGS] {
            loader.map_pin_path(name, pins.path(name));
        }
    }
    let ebpf = loader
        .load(object())
        .context("failed to load the BPF maps")?;
    let maps = Maps::of(&ebpf)?;
    Ok((ebpf, maps))
}

/// Room for learnt flows, of which the one least used makes way.
fn flows(policy: &Policy) -> u32 {
    match Shortcut::from_number(policy.shortcut) {
        Shortcut::Learned => 65_536,
        // A hash has room for one at least.
        Shortcut::Off | Shortcut::Allow => 1,
    }
}

/// Whether `COUNTERS` and `SETTINGS` are pinned, and as this version has them.
fn fit(pins: &Pins) -> bool {
    let is = |name, map_type, value_size, max_entries| {
        MapInfo::from_pin(pins.path(name)).is_ok_and(|map| {
            map.map_type().is_ok_and(|found| found == map_type)
                && map.key_size() as usize == size_of::<u32>()
                && map.value_size() as usize == value_size
                && map.max_entries() == max_entries
        })
    };
    let counters = size_of::<Counters>();
    is(COUNTERS, MapType::PerCpuArray, counters, Vlan::COUNT)
        && is(SETTINGS, MapType::Array, size_of::<Settings>(), 1)
        && tables::settings(pins).is_ok_and(|settings| settings.layout == LAYOUT)
}

/// The XDP program, loaded.
pub fn xdp(ebpf: &mut Ebpf) -> anyhow::Result<&mut Xdp> {
    let program: &mut Xdp = program(ebpf, XDP)?.try_into()?;
    if program.fd().is_err() {
        stop::in_kernel(|| program.load()).map_err(|error| refused(XDP, error))?;
    }
    Ok(program)
}

/// A TC program, loaded.
pub fn tc<'a>(ebpf: &'a mut Ebpf, name: &str) -> anyhow::Result<&'a mut SchedClassifier> {
    let program: &mut SchedClassifier = program(ebpf, name)?.try_into()?;
    if program.fd().is_err() {
        stop::in_kernel(|| program.load()).map_err(|error| refused(name, error))?;
    }
    Ok(program)
}

/// What is said of a program that the kernel does not take. That shows which features it lacks, in the words
/// of its verifier: no version does.
fn refused(name: &str, error: ProgramError) -> anyhow::Error {
    let ProgramError::LoadError {
        io_error,
        verifier_log,
    } = &error
    else {
        return anyhow::Error::new(error).context(format!("failed to load program {name}"));
    };
    // Rights, memory and signals are not the kernel's to lack.
    const ENOTSUPP: i32 = 524;
    const LACKING: [i32; 4] = [libc::EINVAL, libc::EACCES, libc::E2BIG, ENOTSUPP];
    let code = io_error.raw_os_error();
    if !code.is_some_and(|code| LACKING.contains(&code)) {
        return anyhow!("failed to load program {name}: {io_error}");
    }
    let log = verifier_log.to_string();
    let why = log.lines().rev().find(|line| is_reason(line));
    let why = why.map_or_else(|| io_error.to_string(), |line| line.trim().to_owned());
    Error::Kernel {
        what: format!("the kernel refuses program {name} ({why})"),
        remedy: "vlanfast is tested with Linux 6.1, 6.12 and 6.18; use one of these or newer",
    }
    .into()
}

/// Whether a line of the verifier's says why, and not how much there was to look at.
fn is_reason(line: &str) -> bool {
    let figures = ["processed ", "verification time ", "stack depth "];
    !line.trim().is_empty() && !figures.iter().any(|figure| line.starts_with(figure))
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> anyhow::Result<&'a mut aya::programs::Program> {
    ebpf.program_mut(name)
        .ok_or_else(|| anyhow!("the BPF object has no program {name}"))
}

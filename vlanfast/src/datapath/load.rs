//! The BPF object, into the kernel.

use anyhow::{Context, anyhow};
use aya::{
    Ebpf, EbpfLoader,
    maps::Array,
    programs::{SchedClassifier, Xdp},
};
use vlanfast_common::Settings;

/// Program names in the object. The kernel shows 15 characters.
pub const XDP: &str = "vlanfast_xdp";
pub const RX: &str = "vlanfast_rx";
pub const TX: &str = "vlanfast_tx";

static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("VLANFAST_OBJECT"));

/// The object that this binary carries.
pub fn object() -> &'static [u8] {
    OBJECT
}

/// Loads the maps. `log_level` is aya-log's: 0 none, up to 5 for every frame.
pub fn load(log_level: u8) -> anyhow::Result<Ebpf> {
    EbpfLoader::new()
        .override_global(aya_log::LEVEL, &log_level, true)
        .load(object())
        .context("failed to load the BPF maps")
}

/// Loads the XDP program.
pub fn xdp(ebpf: &mut Ebpf) -> anyhow::Result<&mut Xdp> {
    let program: &mut Xdp = program(ebpf, XDP)?.try_into()?;
    program
        .load()
        .with_context(|| format!("the kernel refused program {XDP}"))?;
    Ok(program)
}

/// Loads a TC program.
pub fn tc<'a>(ebpf: &'a mut Ebpf, name: &str) -> anyhow::Result<&'a mut SchedClassifier> {
    let program: &mut SchedClassifier = program(ebpf, name)?.try_into()?;
    program
        .load()
        .with_context(|| format!("the kernel refused program {name}"))?;
    Ok(program)
}

/// Writes the loader's note.
pub fn set_settings(ebpf: &mut Ebpf, settings: Settings) -> anyhow::Result<()> {
    let map = ebpf
        .map_mut("SETTINGS")
        .ok_or_else(|| anyhow!("the BPF object has no SETTINGS"))?;
    let mut map: Array<_, Settings> = map.try_into()?;
    map.set(0, settings, 0).context("failed to write SETTINGS")
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> anyhow::Result<&'a mut aya::programs::Program> {
    ebpf.program_mut(name)
        .ok_or_else(|| anyhow!("the BPF object has no program {name}"))
}

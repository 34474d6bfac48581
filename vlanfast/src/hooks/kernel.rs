//! Whether this process and this kernel can do what vlanfast needs. Features are tried and never guessed
//! from a version: distributions bring them to kernels with older numbers. Whether the kernel takes our
//! programs shows when they are loaded.

use std::fs;

use anyhow::Context;
use caps::{CapSet, Capability};

use crate::{error::Error, hooks::bpf, pins};

/// Fails with what is missing, before anything was changed.
pub fn check() -> anyhow::Result<()> {
    if !bpf::exists() {
        return Err(lacks(
            "this kernel has no bpf(2)".into(),
            "use one built with CONFIG_BPF_SYSCALL, or allow the call in the container's seccomp profile",
        ));
    }
    permitted()?;
    pins::bpffs().map(drop)
}

/// Fails with the capabilities that are missing.
pub fn permitted() -> anyhow::Result<()> {
    let held = caps::read(None, CapSet::Effective).context("failed to read our capabilities")?;
    let all = held.contains(&Capability::CAP_SYS_ADMIN);
    let missing: Vec<String> = [
        (Capability::CAP_NET_ADMIN, false),
        (Capability::CAP_BPF, all),
        // The verifier lets only these compare packet pointers.
        (Capability::CAP_PERFMON, all),
        // Events of other namespaces go to these only: asked for when we begin to listen, and again
        // for each (`do_one_broadcast`).
        (Capability::CAP_NET_BROADCAST, false),
    ]
    .into_iter()
    .filter(|(capability, implied)| !implied && !held.contains(capability))
    .map(|(capability, _)| capability.to_string())
    .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let missing = missing.join(", ");
    Err(Error::NotPermitted { missing }.into())
}

/// Whether this is a realtime kernel (PREEMPT_RT), where from Linux 6.18 on one task may run in the middle of what
/// another does with softirqs off (`PREEMPT_RT_NEEDS_BH_LOCK` not set).
pub fn is_realtime() -> bool {
    fs::read_to_string("/sys/kernel/realtime").is_ok_and(|text| text.trim() == "1")
}

fn lacks(what: String, remedy: &'static str) -> anyhow::Error {
    Error::Kernel { what, remedy }.into()
}

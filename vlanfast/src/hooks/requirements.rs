//! Checks that this process has the capabilities that vlanfast needs, and that the kernel has bpf(2) and a BPF file
//! system. Features are tried and never guessed from a version, because distributions bring them to kernels with older
//! version numbers. Whether the kernel accepts our programs shows when they are loaded.

use std::fs;

use anyhow::Context;
use caps::{CapSet, Capability};

use crate::{error::Error, hooks::bpf_syscall, pins};

/// Fails if anything is missing, before anything is changed.
pub fn check() -> anyhow::Result<()> {
    if !bpf_syscall::exists() {
        return Err(lacks(
            "this kernel has no bpf(2) system call".into(),
            "use a kernel built with CONFIG_BPF_SYSCALL, or allow the call in the container's seccomp profile",
        ));
    }
    permitted()?;
    pins::bpffs().map(drop)
}

/// Fails if capabilities are missing, and names them.
pub fn permitted() -> anyhow::Result<()> {
    let held = caps::read(None, CapSet::Effective).context("failed to read our capabilities")?;
    let all = held.contains(&Capability::CAP_SYS_ADMIN);
    let missing: Vec<String> = [
        (Capability::CAP_NET_ADMIN, false),
        (Capability::CAP_BPF, all),
        // Without it the verifier rejects comparisons of packet pointers.
        (Capability::CAP_PERFMON, all),
        // netlink events of other network namespaces are delivered only with it. The kernel checks when we subscribe,
        // and again for each event (`do_one_broadcast`).
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

/// Whether this is a realtime kernel (PREEMPT_RT). From Linux 6.18 on, a task there may preempt another that has
/// softirqs disabled (`PREEMPT_RT_NEEDS_BH_LOCK` not set).
pub fn is_realtime() -> bool {
    fs::read_to_string("/sys/kernel/realtime").is_ok_and(|text| text.trim() == "1")
}

fn lacks(what: String, remedy: &'static str) -> anyhow::Error {
    Error::Kernel { what, remedy }.into()
}

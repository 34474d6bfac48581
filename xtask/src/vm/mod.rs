//! The lab: a Debian kernel booted in QEMU, with iproute2, Docker and our binaries in an initramfs.
//!
//! Nothing is installed on the host: QEMU, kernels and guest programs are Debian packages unpacked
//! into the cache. After the first run no network is needed.

mod boot;
mod image;
mod job;
mod packages;
mod qemu;

use std::path::Path;

use anyhow::{Context, Result, bail};
use boot::Guest;
pub use job::{End, File, Job, Kernel, Outcome};

use crate::sh;

/// Fails if the job needs taps and the host cannot provide them.
pub fn ensure_taps(command: &str) -> Result<()> {
    if sh::is_root() && Path::new("/dev/net/tun").exists() {
        return Ok(());
    }
    bail!(
        "NICs with several queues, or that merge packets, need taps, which need root and /dev/net/tun: run \
         `modprobe tun`, then `{command}` as root"
    )
}

/// Runs a job in a fresh guest and passes every line of its console to `on_line` as it arrives.
///
/// The guest has 2 CPUs (one where its clock counts instructions), 4 GB, iproute2, ping, arping, ndisc6,
/// traceroute, ethtool, bpftool, tcpdump, dnsmasq, avahi, keepalived, Docker and Prometheus; busybox is
/// everything else. Its network:
///
/// - `eth0` (52:54:00:00:00:0a) and `eth1` (52:54:00:00:00:0b) are two virtio NICs joined by a wire
///   inside QEMU, both down: a trunk with a real driver, and what is behind it.
/// - `dockerd` is not started. `/lab/image.tar` is for `docker import`: busybox and `/sbin/my_init`.
///
/// Lines that start with `@@ ` are the protocol: `@@ guest ready` before the script starts and
/// `@@ guest done rc=N` after it. A script may print `@@ begin NAME` and `@@ end NAME rc=N`; they are
/// passed on unread. A guest that isn't ready within three minutes is booted again, three times at most,
/// so `on_line` can see the lines of a boot that failed.
///
/// `Err` means the lab didn't work (no package, no QEMU, no boot). A script that failed, hung or took
/// the guest down with it is an `Ok` with the [`End`] that says so.
///
/// In the script, enter a namespace with `nsenter --net=/run/netns/NAME`: `ip netns exec` remounts
/// `/sys` and hides the BPF filesystem.
pub fn run(job: &Job, mut on_line: impl FnMut(&str)) -> Result<Outcome> {
    let dir = sh::workspace().join("target/lab");
    std::fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
    // Two runs at once must not build the same cache; the lock is released with the file.
    let lock = packages::lock()?;
    let qemu = packages::qemu()?;
    let kernel = packages::kernel(job.kernel)?;
    let initrd = image::build(job, &kernel, &dir.join(format!("{}.cpio", job.name)))?;
    drop(lock);
    let log = dir.join(format!("{}.log", job.name));
    let guest = Guest {
        job,
        qemu: &qemu,
        vmlinuz: &kernel.vmlinuz,
        initrd: &initrd,
        log: &log,
    };
    let end = guest.run(&mut on_line);
    // The image takes a third of a gigabyte, and the next run builds it anew, so it is removed even after a failure.
    let _ = std::fs::remove_file(&initrd);
    Ok(Outcome { end: end?, log })
}

//! Builds QEMU's command line.

use std::{ffi::OsStr, path::Path, process::Command};

use super::job::Job;

/// The niceness of a guest that yields: it gets a tenth of a CPU that others keep busy.
const NICE: &str = "10";

/// Creates two taps on a bridge, in a network namespace that ends with QEMU.
const TAPS: &str = r#"set -e
echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6
ip link add wire type bridge mcast_snooping 0
for end in a b; do
    ip tuntap add dev $end mode tap multi_queue
    ip link set dev $end master wire up
done
ip link set dev wire up
exec "$@""#;

/// Returns one end of the wire between the two NICs, and the options of its NIC. A hub, which needs no privilege, has
/// one queue for each.
fn wire(name: &str, queues: Option<u32>) -> (String, String) {
    match queues {
        None => (format!("hubport,hubid=0,id={name}"), String::new()),
        Some(queues) => (
            format!("tap,id={name},ifname={name},script=no,downscript=no,queues={queues}"),
            // Each queue has a vector per direction, and there is one each for configuration and control.
            format!(",mq=on,vectors={}", 2 * queues + 2),
        ),
    }
}

/// Returns the command that boots a job's kernel, with its console on standard output.
pub(super) fn command(job: &Job, qemu: &Path, vmlinuz: &Path, initrd: &Path) -> Command {
    let mut command = loader(job, qemu);
    clock(job, &mut command);
    command.args(["-cpu", job.cpu]);
    command.args([
        "-m",
        "4096",
        "-nographic",
        "-no-reboot",
        "-nodefaults",
        "-serial",
        "stdio",
    ]);
    for (name, last) in [("a", "0a"), ("b", "0b")] {
        let (wire, queues) = wire(name, job.queues);
        // Without `romfile=`, QEMU would look for a boot ROM.
        let nic =
            format!("virtio-net-pci,netdev={name},mac=52:54:00:00:00:{last},romfile={queues}");
        command.args(["-netdev", &wire, "-device", &nic]);
    }
    // TCG caches its translation of a program by virtual address: with random addresses each process is translated
    // anew, which takes most of a short process's time.
    let append = "console=ttyS0 quiet loglevel=3 panic=-1 mitigations=off norandmaps";
    command
        .arg("-kernel")
        .arg(vmlinuz)
        .arg("-initrd")
        .arg(initrd)
        .args(["-append", append]);
    command
}

/// Returns QEMU's own command, from its unpacked directory.
fn loader(job: &Job, qemu: &Path) -> Command {
    // It uses its own loader and libraries, because it runs where it was unpacked.
    let loader = qemu.join("lib64/ld-linux-x86-64.so.2");
    let mut words: Vec<&OsStr> = vec![];
    if job.yields {
        words.extend(["nice", "-n", NICE].map(OsStr::new));
    }
    if job.queues.is_some() {
        words.extend(["unshare", "--net", "sh", "-c", TAPS, "sh"].map(OsStr::new));
    }
    words.push(loader.as_os_str());
    let mut command = Command::new(words[0]);
    let libraries = qemu.join("usr/lib/x86_64-linux-gnu");
    command
        .args(&words[1..])
        .arg("--library-path")
        .arg(&libraries)
        .arg(qemu.join("usr/bin/qemu-system-x86_64"))
        .arg("-L")
        .arg(qemu.join("usr/share/qemu"))
        .arg("-L")
        .arg(qemu.join("usr/share/seabios"))
        .env("QEMU_MODULE_DIR", libraries.join("qemu"));
    command
}

fn clock(job: &Job, command: &mut Command) {
    if job.icount {
        command.args(["-accel", "tcg", "-smp", "1"]);
        // Packets on a tap take the host's time: a clock that jumps would pass every TCP timer before they arrive.
        let sleep = if job.queues.is_some() { "on" } else { "off" };
        command.args(["-icount", &format!("shift=0,sleep={sleep}")]);
    } else {
        // KVM is not used: it opens on hosts where a stock kernel then hangs. Multi-threaded TCG occasionally panics
        // a guest while it patches its own code.
        command.args(["-accel", "tcg,thread=single", "-smp", "2"]);
    }
}

//! Debian packages, fetched and unpacked into the cache without touching the host's own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::job::Kernel;
use crate::sh;

/// The packages of the guest's user space; apt adds their dependencies.
const GUEST: &[&str] = &[
    "avahi-daemon",
    "busybox-static",
    "bpftool",
    // busybox's shell runs its own `ip` and `ping`, whatever the PATH says.
    "dash",
    "dnsmasq-base",
    "docker.io",
    "ethtool",
    "iproute2",
    // busybox's applet would not do, because the tests parse the output of this program.
    "iputils-arping",
    "iputils-ping",
    // It needs libperl through libsnmp, but not the language.
    "keepalived",
    "ndisc6",
    "nftables",
    // The benchmark uses the kernel's datapath, and only `ovs-dpctl` sets that up.
    "openvswitch-switch",
    "prometheus",
    "tcpdump",
    "traceroute",
    // busybox's `nsenter` would run busybox's `sh`, which runs busybox's `ip`.
    "util-linux",
];

/// Packages that only package scripts need, which never run here, or that nothing needs. They would make up half of
/// the image.
const PRUNE: &[&str] = &[
    "etc/init.d",
    "etc/systemd",
    "usr/bin/containerd-shim",
    "usr/bin/containerd-shim-runc-v1",
    "usr/bin/containerd-stress",
    "usr/bin/ctr",
    "usr/bin/dbus-*",
    "usr/bin/dnet",
    "usr/bin/dpkg*",
    "usr/bin/perl*",
    "usr/bin/python3*",
    "usr/lib/openvswitch-switch",
    "usr/lib/python3*",
    "usr/lib/systemd",
    "usr/lib/x86_64-linux-gnu/gconv",
    "usr/lib/x86_64-linux-gnu/perl*",
    "usr/sbin/ovrouter",
    "usr/share",
];

pub(super) fn lab_dir() -> Result<PathBuf> {
    Ok(sh::cache_dir()?.join("lab"))
}

/// Waits until no other process works on the lab's cache.
pub(super) fn lock() -> Result<fs::File> {
    let dir = lab_dir()?;
    fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
    let path = dir.join("lock");
    let file = fs::File::create(&path).with_context(|| format!("creating {}", path.display()))?;
    file.lock()
        .with_context(|| format!("locking {}", path.display()))?;
    Ok(file)
}

/// An unpacked kernel package.
pub(super) struct KernelDir {
    pub vmlinuz: PathBuf,
    /// The directory `lib/modules/VERSION`, which has a `modules.dep`.
    pub modules: PathBuf,
    /// A stamp that changes whenever another version is unpacked.
    pub stamp: String,
}

/// Returns the newest kernel of a series at the time of the first call, and the cached one from then on.
pub(super) fn kernel(kernel: Kernel) -> Result<KernelDir> {
    let dir = lab_dir()?.join(format!("kernel-{kernel}"));
    let stamp = unpacked(&dir, kernel.metapackage(), "", |root| {
        let version = single_entry(&root.join("lib/modules"))?;
        let name = version
            .file_name()
            .context("naming the kernel's module directory")?;
        // The package's install script would create this.
        sh::run(Command::new("depmod").arg("-b").arg(root).arg(name))
    })?;
    let root = dir.join("root");
    let vmlinuz = fs::read_dir(root.join("boot"))
        .with_context(|| format!("reading {}/boot", root.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.to_string_lossy().contains("/vmlinuz-"))
        .with_context(|| {
            format!(
                "finding vmlinuz in {}: remove that directory and run again",
                dir.display()
            )
        })?;
    let modules = single_entry(&root.join("lib/modules"))?;
    Ok(KernelDir {
        vmlinuz,
        modules,
        stamp,
    })
}

/// A directory with QEMU and all that it needs down to the C library.
///
/// QEMU is not installed, because Debian's package would remove a newer qemu-utils from the host.
pub(super) fn qemu() -> Result<PathBuf> {
    let dir = lab_dir()?.join("qemu");
    unpacked(&dir, "qemu-system-x86", "", |_| Ok(()))?;
    Ok(dir.join("root"))
}

/// Returns the guest's root directory and its stamp.
pub(super) fn guest() -> Result<(PathBuf, String)> {
    let dir = lab_dir()?.join("guest");
    let stamp = unpacked(&dir, &GUEST.join(" "), &PRUNE.join(" "), |root| {
        let patterns: Vec<String> = PRUNE
            .iter()
            .map(|what| format!("{}/{what}", root.display()))
            .collect();
        // The patterns are the constants above; the shell only expands them.
        let script = format!("rm -rf {}", patterns.join(" "));
        sh::run(Command::new("sh").arg("-c").arg(script))
    })?;
    Ok((dir.join("root"), stamp))
}

/// Makes `dir/root` contain `packages` unless its stamp matches; returns the stamp.
///
/// The stamp is written last and starts with the requested list. A half-made directory, or one for another list, is
/// built anew, and a complete one needs no network again.
fn unpacked(
    dir: &Path,
    packages: &str,
    without: &str,
    finish: impl FnOnce(&Path) -> Result<()>,
) -> Result<String> {
    let stamp = dir.join("stamp");
    let request = format!("{packages} without: {without}");
    if let Ok(text) = fs::read_to_string(&stamp)
        && text.lines().next() == Some(request.as_str())
    {
        return Ok(text);
    }
    sh::step(&format!("fetching {packages}"));
    let root = dir.join("root");
    if dir.exists() {
        fs::remove_dir_all(dir).with_context(|| format!("removing {}", dir.display()))?;
    }
    // Debian's merged /usr must be created first, or `./lib` in a package becomes a directory.
    for name in ["bin", "lib", "lib64", "sbin"] {
        let usr = root.join("usr").join(name);
        fs::create_dir_all(&usr).with_context(|| format!("creating {}", usr.display()))?;
        std::os::unix::fs::symlink(format!("usr/{name}"), root.join(name))
            .with_context(|| format!("linking {name} in {}", root.display()))?;
    }
    let debs = download(dir, packages)?;
    for deb in &debs {
        let script = r#"dpkg-deb --fsys-tarfile "$0" | tar -x --keep-directory-symlink --no-same-owner -C "$1""#;
        sh::run(Command::new("sh").args(["-ec", script]).arg(deb).arg(&root))?;
    }
    finish(&root)?;
    let names = debs
        .iter()
        .filter_map(|deb| Some(deb.file_name()?.to_string_lossy().into_owned()));
    let text = [request]
        .into_iter()
        .chain(names)
        .collect::<Vec<_>>()
        .join("\n");
    fs::remove_dir_all(dir.join("apt"))
        .with_context(|| format!("removing {}/apt", dir.display()))?;
    fs::write(&stamp, &text).with_context(|| format!("writing {}", stamp.display()))?;
    Ok(text)
}

/// Downloads packages with all their dependencies: apt is told that nothing is installed, so the result does not
/// depend on the host's packages.
fn download(dir: &Path, packages: &str) -> Result<Vec<PathBuf>> {
    let apt = dir.join("apt");
    let archives = apt.join("archives");
    fs::create_dir_all(archives.join("partial"))
        .with_context(|| format!("creating {}", archives.display()))?;
    let status = apt.join("status");
    fs::write(&status, "").with_context(|| format!("writing {}", status.display()))?;
    let (wanted, follow): (Vec<String>, bool) = match packages.strip_prefix("linux-image-") {
        // A kernel "depends" on the tools that would install it, so only the image is taken.
        Some(_) => (vec![newest_image(packages)?], false),
        None => (packages.split(' ').map(str::to_owned).collect(), true),
    };
    let mut command = Command::new("apt-get");
    command
        .arg("-qq")
        .arg("-o")
        .arg(format!("Dir::State::status={}", status.display()))
        // This also keeps apt from writing its index of an empty system into the host's cache.
        .arg("-o")
        .arg(format!("Dir::Cache={}", apt.display()))
        // The cache belongs to the user, and apt's own user cannot write to it.
        .args([
            "-o",
            "APT::Sandbox::User=root",
            "-o",
            "APT::Install-Recommends=false",
        ])
        .current_dir(&archives);
    if follow {
        command.args(["install", "--download-only", "-y"]);
    } else {
        command.arg("download");
    }
    sh::run(command.args(&wanted)).with_context(|| {
        format!(
            "downloading {} (is apt's list old? try `apt-get update`)",
            wanted.join(" ")
        )
    })?;
    let mut debs: Vec<PathBuf> = fs::read_dir(&archives)
        .with_context(|| format!("reading {}", archives.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|ext| ext == "deb"))
        .collect();
    debs.sort();
    if debs.is_empty() {
        bail!("downloading {}: apt-get fetched nothing", wanted.join(" "));
    }
    Ok(debs)
}

/// Returns the image to which a kernel metapackage refers.
fn newest_image(metapackage: &str) -> Result<String> {
    let text = sh::capture(Command::new("apt-cache").args(["depends", metapackage]))?;
    dependency(&text).map(str::to_owned).with_context(|| {
        format!("resolving {metapackage}: apt knows no such kernel; the lab needs Debian 12 with its security archive, and `apt-get update`")
    })
}

fn dependency(depends: &str) -> Option<&str> {
    depends.lines().find_map(|line| {
        line.trim()
            .strip_prefix("Depends: linux-image")
            .map(|_| &line.trim()[9..])
    })
}

fn single_entry(dir: &Path) -> Result<PathBuf> {
    let mut entries = fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))?;
    let entry = entries
        .next()
        .with_context(|| format!("finding anything in {}", dir.display()))?;
    Ok(entry
        .with_context(|| format!("reading {}", dir.display()))?
        .path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metapackage_leads_to_its_image() {
        let text =
            "linux-image-6.12-cloud-amd64\n  Depends: linux-image-6.12.117+deb12-cloud-amd64\n";
        assert_eq!(
            dependency(text),
            Some("linux-image-6.12.117+deb12-cloud-amd64")
        );
        assert_eq!(dependency("x\n  Depends: libc6\n"), None);
    }
}

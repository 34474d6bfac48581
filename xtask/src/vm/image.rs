//! The guest's initramfs: a large base per kernel, which is built once, and a small archive per job behind it.
//!
//! The kernel unpacks consecutive archives one over the other, so a rerun only builds the small one. Nothing is
//! compressed: under TCG the guest would take longer to inflate the archive than QEMU takes to load it.

use std::{
    collections::HashSet,
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    io::Write,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::{
    job::{File, Job},
    packages::{self, KernelDir},
};
use crate::sh;

const INIT: &str = include_str!("../../guest/init");
const MY_INIT: &str = include_str!("../../guest/my_init");

/// Modules that are loaded at boot with their dependencies. Modules that a kernel has built in or lacks are skipped:
/// the tests that need one report it.
const MODULES: &[&str] = &[
    "8021q",
    "act_bpf",
    "act_mirred",
    "act_vlan",
    "af_packet",
    "bonding",
    "bridge",
    "cls_bpf",
    "cls_flower",
    "dummy",
    "esp4",
    "esp4_offload",
    "fou",
    "fou6",
    "geneve",
    "ifb",
    "ip6_gre",
    "ip6_tunnel",
    "ip_gre",
    "ipip",
    "ipvlan",
    "macvlan",
    "macvtap",
    "nf_tables",
    "nft_chain_nat",
    "nft_ct",
    "nft_masq",
    "openvswitch",
    "overlay",
    "pktgen",
    "sch_fq",
    "sch_ingress",
    "sch_netem",
    "sctp",
    "sit",
    "tun",
    "veth",
    "virtio_net",
    "virtio_pci",
    "vxlan",
    "xfrm_user",
];

/// Writes the job's initramfs to `out`.
pub(super) fn build(job: &Job, kernel: &KernelDir, out: &Path) -> Result<PathBuf> {
    let (root, guest_stamp) = packages::guest()?;
    let base = base(&root, &guest_stamp, kernel, &format!("base-{}", job.kernel))?;
    let stage = Stage::new(&out.with_extension("stage"))?;
    stage.write("init", INIT, 0o755)?;
    stage.write("lab/run.sh", &job.script, 0o644)?;
    for file in &job.files {
        add(&stage, &root, file)?;
    }
    fs::copy(&base, out)
        .with_context(|| format!("copying {} to {}", base.display(), out.display()))?;
    stage.append_to(out)?;
    Ok(out.to_owned())
}

/// Returns the part that all jobs of a kernel share, from the cache if the recipe and its parts are unchanged.
fn base(root: &Path, guest_stamp: &str, kernel: &KernelDir, name: &str) -> Result<PathBuf> {
    let dir = packages::lab_dir()?;
    let mut hasher = DefaultHasher::new();
    // This file is the recipe.
    (
        include_str!("image.rs"),
        MY_INIT,
        guest_stamp,
        &kernel.stamp,
    )
        .hash(&mut hasher);
    let key = format!("{:016x}", hasher.finish());
    let (base, stamp) = (
        dir.join(format!("{name}.cpio")),
        dir.join(format!("{name}.stamp")),
    );
    if base.exists() && fs::read_to_string(&stamp).is_ok_and(|old| old == key) {
        return Ok(base);
    }
    sh::step(&format!("making {}", base.display()));
    let stage = Stage::new(&dir.join(format!("{name}.stage")))?;
    sh::run(
        Command::new("cp")
            .arg("-a")
            .arg(root.join("."))
            .arg(&stage.dir),
    )?;
    for dir in [
        "dev", "etc", "lab/bin", "proc", "root", "run", "sys", "tmp", "usr/sbin", "var/lib",
    ] {
        stage.mkdir(dir)?;
    }
    // avahi-daemon gives its directory to a user of its own, even if it runs as root.
    let users = "root:x:0:0:root:/root:/bin/sh\navahi:x:2:2::/:/bin/false\n";
    stage.write("etc/passwd", users, 0o644)?;
    stage.write("etc/group", "root:x:0:\ndocker:x:1:\navahi:x:2:\n", 0o644)?;
    stage.write("etc/hosts", "127.0.0.1 localhost\n", 0o644)?;
    let busybox = stage.dir.join("usr/bin/busybox");
    // Debian's install scripts create these.
    stage.link("usr/bin/traceroute", "traceroute.db")?;
    stage.link("usr/bin/sh", "dash")?;
    link_applets(&stage, &busybox)?;
    add_modules(&stage, kernel)?;
    add_container_image(&stage, &busybox)?;
    // The archive is written under another name and renamed, so that an interrupted run cannot leave half of it.
    let fresh = base.with_extension("new");
    let _ = fs::remove_file(&fresh);
    stage.append_to(&fresh)?;
    fs::rename(&fresh, &base).with_context(|| format!("renaming {}", fresh.display()))?;
    fs::write(&stamp, key).with_context(|| format!("writing {}", stamp.display()))?;
    Ok(base)
}

/// Links every applet that has no program in the tree: iproute2's `ip` and the real `ping` take precedence.
fn link_applets(stage: &Stage, busybox: &Path) -> Result<()> {
    let applets = sh::capture(Command::new(busybox).arg("--list"))?;
    for applet in applets.lines().filter(|name| *name != "busybox") {
        let taken = ["usr/bin", "usr/sbin"]
            .iter()
            .any(|dir| stage.dir.join(dir).join(applet).symlink_metadata().is_ok());
        if !taken {
            stage.link(&format!("usr/bin/{applet}"), "busybox")?;
        }
    }
    Ok(())
}

/// Copies the modules into one flat directory with a list in load order, from which `init` loads them.
fn add_modules(stage: &Stage, kernel: &KernelDir) -> Result<()> {
    let file = kernel.modules.join("modules.dep");
    let dep = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    stage.mkdir("usr/lib/modules")?;
    let mut order = String::new();
    for path in load_order(&dep, MODULES) {
        let name = path.rsplit('/').next().unwrap_or(&path).to_owned();
        let to = stage.dir.join("usr/lib/modules").join(&name);
        let from = kernel.modules.join(&path);
        fs::copy(&from, &to).with_context(|| format!("copying {}", from.display()))?;
        // Debian compresses modules from 6.12 on, which busybox's insmod cannot read.
        if name.ends_with(".xz") {
            sh::run(Command::new("xz").args(["-d", "-f"]).arg(&to))?;
        }
        order.push_str(name.trim_end_matches(".xz"));
        order.push('\n');
    }
    stage.write("usr/lib/modules/order", &order, 0o644)
}

/// Returns the paths of the wanted modules and of their dependencies, each after its own dependencies.
fn load_order(modules_dep: &str, wanted: &[&str]) -> Vec<String> {
    let mut order: Vec<String> = Vec::new();
    let mut seen = HashSet::new();
    for name in wanted {
        let line = modules_dep
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(path, _)| module_name(path) == *name);
        let Some((path, needs)) = line else { continue };
        // modules.dep lists indirect dependencies too, the deepest last.
        for path in needs.split_whitespace().rev().chain([path]) {
            if seen.insert(path) {
                order.push(path.to_owned());
            }
        }
    }
    order
}

fn module_name(path: &str) -> &str {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split(".ko").next().unwrap_or(file)
}

/// Builds `/lab/image.tar`, which replaces the tutorial's phusion/baseimage, because the guest has no network.
fn add_container_image(stage: &Stage, busybox: &Path) -> Result<()> {
    let image = Stage::new(&stage.dir.with_extension("container"))?;
    for dir in ["dev", "etc", "proc", "sys", "tmp", "usr/sbin", "sbin"] {
        image.mkdir(dir)?;
    }
    image.mkdir("usr/bin")?;
    image.link("bin", "usr/bin")?;
    fs::copy(busybox, image.dir.join("usr/bin/busybox"))
        .context("copying busybox into the container image")?;
    link_applets(&image, busybox)?;
    image.write("sbin/my_init", MY_INIT, 0o755)?;
    image.write("etc/passwd", "root:x:0:0:root:/:/bin/sh\n", 0o644)?;
    let tar = stage.dir.join("lab/image.tar");
    sh::run(
        Command::new("tar")
            .args(["--owner=0", "--group=0", "-cf"])
            .arg(tar)
            .arg("-C")
            .arg(&image.dir)
            .arg("."),
    )
}

/// Adds one file of the job, and the libraries that it needs and the guest lacks.
fn add(stage: &Stage, root: &Path, file: &File) -> Result<()> {
    let to = stage.parent_of(&format!("lab/{}", file.to))?;
    fs::copy(&file.from, &to)
        .with_context(|| format!("copying {} into the guest", file.from.display()))?;
    let mode = fs::metadata(&to)
        .with_context(|| format!("reading {}", to.display()))?
        .permissions()
        .mode();
    let magic = fs::read(&to).with_context(|| format!("reading {}", to.display()))?;
    // BPF objects are ELF as well, but not executable, and their BTF must stay.
    if mode & 0o111 == 0 || !magic.starts_with(b"\x7fELF") {
        return Ok(());
    }
    sh::run(Command::new("strip").arg("--strip-debug").arg(&to))?;
    // ldd fails on a static program, which needs no library.
    let libs = sh::capture(Command::new("ldd").arg(&file.from)).unwrap_or_default();
    for lib in libs.split_whitespace().filter(|word| word.starts_with('/')) {
        // The real path is used: a `/lib` in this archive would replace the guest's link to `usr/lib`.
        let path = Path::new(lib);
        let parent = path
            .parent()
            .unwrap_or(path)
            .canonicalize()
            .with_context(|| format!("resolving {lib}"))?;
        let inside = parent.join(path.file_name().unwrap_or_default());
        let inside = inside.strip_prefix("/").unwrap_or(&inside).to_owned();
        if root.join(&inside).symlink_metadata().is_ok() {
            continue;
        }
        let to = stage.parent_of(&inside.to_string_lossy())?;
        fs::copy(lib, &to).with_context(|| format!("copying {lib} into the guest"))?;
    }
    Ok(())
}

/// A directory that becomes an archive and is removed afterwards.
struct Stage {
    dir: PathBuf,
}

impl Stage {
    fn new(dir: &Path) -> Result<Stage> {
        if dir.exists() {
            fs::remove_dir_all(dir).with_context(|| format!("removing {}", dir.display()))?;
        }
        fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
        Ok(Stage {
            dir: dir.to_owned(),
        })
    }

    fn mkdir(&self, path: &str) -> Result<()> {
        let dir = self.dir.join(path);
        fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))
    }

    fn link(&self, path: &str, target: &str) -> Result<()> {
        let link = self.dir.join(path);
        let _ = fs::remove_file(&link);
        symlink(target, &link).with_context(|| format!("linking {}", link.display()))
    }

    /// Returns the path of a file, and creates its directory.
    fn parent_of(&self, path: &str) -> Result<PathBuf> {
        if let Some((parent, _)) = path.rsplit_once('/') {
            self.mkdir(parent)?;
        }
        Ok(self.dir.join(path))
    }

    fn write(&self, path: &str, text: &str, mode: u32) -> Result<()> {
        let to = self.parent_of(path)?;
        let context = || format!("writing {}", to.display());
        fs::write(&to, text).with_context(context)?;
        fs::set_permissions(&to, fs::Permissions::from_mode(mode)).with_context(context)
    }

    /// Appends the directory to `out` as a newc archive whose files all belong to root.
    fn append_to(&self, out: &Path) -> Result<()> {
        let file = fs::OpenOptions::new().create(true).append(true).open(out);
        let mut file = file.with_context(|| format!("opening {}", out.display()))?;
        let script = "find . -mindepth 1 -print0 | cpio --null --quiet -o -H newc -R 0:0";
        let mut command = Command::new("sh");
        command.args(["-ec", script]).current_dir(&self.dir).stdout(
            file.try_clone()
                .with_context(|| format!("opening {}", out.display()))?,
        );
        sh::run(&mut command)?;
        file.flush()
            .with_context(|| format!("writing {}", out.display()))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_come_after_what_they_need_and_once() {
        let dep = "kernel/net/llc/llc.ko:\n\
                   kernel/net/802/stp.ko.xz: kernel/net/llc/llc.ko\n\
                   kernel/net/802/garp.ko: kernel/net/802/stp.ko.xz kernel/net/llc/llc.ko\n\
                   kernel/net/8021q/8021q.ko: kernel/net/802/garp.ko kernel/net/802/stp.ko.xz kernel/net/llc/llc.ko\n\
                   kernel/net/bridge/bridge.ko: kernel/net/802/stp.ko.xz kernel/net/llc/llc.ko\n";
        let names: Vec<String> = load_order(dep, &["8021q", "bridge", "absent"]);
        let names: Vec<&str> = names.iter().map(|path| module_name(path)).collect();
        assert_eq!(names, ["llc", "stp", "garp", "8021q", "bridge"]);
    }
}

//! Installs what is missing: Debian's packages as root, bpf-linker as whoever runs this.

use std::{env, fs, process::Command};

use anyhow::{Result, bail};

use crate::{
    ebpf, sh,
    toolchain::{self, BPF_LINKER, Compiler, LLVM, RUSTC_PACKAGES},
};

/// What something is needed for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// To build.
    Build,
    /// To run tests as root, and the virtual machines.
    Lab,
}

/// For whatever cargo compiles.
const COMPILE: &[&str] = &["gcc", "libc6-dev"];
/// What bpf-linker is compiled and linked with.
const LINKER: &[&str] = &[
    "g++",
    "libpolly-22-dev",
    "libzstd-dev",
    "llvm-22-dev",
    "zlib1g-dev",
];
const LAB: &[&str] = &[
    "binutils",
    "cpio",
    "ethtool",
    "iproute2",
    "kmod",
    "qemu-system-x86",
    "tar",
    "util-linux",
    "xz-utils",
];

/// The command: everything, and a word if there was nothing to do.
pub fn setup() -> Result<()> {
    let packages = [missing(&wanted(Need::Build)), missing(&wanted(Need::Lab))].concat();
    let nothing = packages.is_empty() && toolchain::linker().is_ok();
    ensure(Need::Build)?;
    ensure(Need::Lab)?;
    if nothing {
        println!("everything is installed");
    }
    Ok(())
}

/// Installs what is missing for one need; silent where nothing is.
pub fn ensure(need: Need) -> Result<()> {
    install(&missing(&wanted(need)))?;
    if need == Need::Build {
        Compiler::find()?;
        if toolchain::linker().is_err() {
            install_linker()?;
        }
    }
    Ok(())
}

fn wanted(need: Need) -> Vec<&'static str> {
    match need {
        Need::Lab => LAB.to_vec(),
        Need::Build => {
            let mut packages = COMPILE.to_vec();
            if Compiler::nightly().is_none() {
                packages.extend(RUSTC_PACKAGES);
            }
            if toolchain::linker().is_err() {
                packages.extend(LINKER);
            }
            packages
        }
    }
}

/// Those that dpkg does not have.
fn missing(packages: &[&'static str]) -> Vec<&'static str> {
    packages
        .iter()
        .copied()
        .filter(|package| !is_installed(package))
        .collect()
}

fn is_installed(package: &str) -> bool {
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat=${db:Status-Status}", package]);
    sh::capture(&mut query).is_ok_and(|status| status == "installed")
}

fn install(packages: &[&str]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    let list = packages.join(" ");
    if !is_debian() {
        bail!(
            "this is neither Debian nor Ubuntu, so install by hand what these packages of Debian \
             bring: {list}"
        );
    }
    sh::step(&format!("installing {list}"));
    let script = format!(
        "apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -o Dpkg::Use-Pty=0 \
         --no-install-recommends {list}"
    );
    let mut command = if sh::is_root() {
        Command::new("sh")
    } else if sh::capture(Command::new("sudo").arg("--version")).is_ok() {
        let mut sudo = Command::new("sudo");
        sudo.arg("sh");
        sudo
    } else {
        bail!("packages are missing and there is no sudo: run as root `apt-get install {list}`");
    };
    sh::run(command.args(["-c", &script]))
}

fn install_linker() -> Result<()> {
    sh::step(&format!(
        "installing bpf-linker {BPF_LINKER} with LLVM {LLVM} (a minute or two)"
    ));
    let mut cargo = Command::new("cargo");
    cargo
        .args([
            "install",
            "bpf-linker",
            "--version",
            BPF_LINKER,
            "--locked",
            "--quiet",
        ])
        .args([
            "--no-default-features",
            "--features",
            &format!("llvm-{LLVM}"),
            "--root",
        ])
        .arg(sh::cache_dir()?.join("tools"))
        .env("LLVM_PREFIX", format!("/usr/lib/llvm-{LLVM}"))
        .env("PATH", ebpf::llvm_first())
        // Not into the repository's target directory, whatever the user has set.
        .env_remove("CARGO_TARGET_DIR")
        .current_dir(env::temp_dir());
    sh::run(&mut cargo)
}

fn is_debian() -> bool {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    release
        .lines()
        .filter_map(|line| line.strip_prefix("ID=").or(line.strip_prefix("ID_LIKE=")))
        .any(|ids| {
            ids.trim_matches('"')
                .split(' ')
                .any(|id| id == "debian" || id == "ubuntu")
        })
}

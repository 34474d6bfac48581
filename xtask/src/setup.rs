//! Installs what is missing: Debian's packages as root, and bpf-linker as the user.

use std::{env, process::Command};

use anyhow::{Context, Result, bail};

use crate::{
    sh,
    toolchain::{self, BPF_LINKER, Compiler, LLVM, RUST_SRC, RUSTC_PACKAGES},
};

/// The purpose of a package.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// The package is needed to build.
    Build,
    /// The package is needed to run tests as root, and for the virtual machines.
    Lab,
}

/// Packages for everything that cargo compiles.
const COMPILE: &[&str] = &["gcc", "libc6-dev"];
/// The sign that a package is installed where dpkg does not say: a program, if the package has one.
const PROGRAMS: &[(&str, &str)] = &[
    ("binutils", "strip"),
    ("cpio", "cpio"),
    ("ethtool", "ethtool"),
    ("gcc", "cc"),
    ("iproute2", "ip"),
    ("iputils-ping", "ping"),
    ("kmod", "depmod"),
    ("libc6-dev", "cc"),
    ("tar", "tar"),
    ("util-linux", "nsenter"),
    ("xz-utils", "xz"),
];
/// The packages with which bpf-linker is compiled and linked.
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
    "iputils-ping",
    "kmod",
    "tar",
    "util-linux",
    "xz-utils",
];

/// Installs everything, and reports if there was nothing to do.
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

/// Installs what is missing for one purpose, and prints nothing if nothing is missing.
pub fn ensure(need: Need) -> Result<()> {
    install(&missing(&wanted(need)))?;
    if need == Need::Build {
        Compiler::find()?;
        if let Err(absent) = toolchain::linker() {
            // On other distributions the place of LLVM and the names of its packages are unknown.
            if !sh::is_debian() {
                return Err(absent);
            }
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
            if !sh::is_debian() {
                return packages;
            }
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

/// Returns the packages that this machine does not have.
fn missing(packages: &[&'static str]) -> Vec<&'static str> {
    packages
        .iter()
        .copied()
        .filter(|package| !is_installed(package))
        .collect()
}

fn is_installed(package: &str) -> bool {
    if !sh::is_debian() {
        let program = PROGRAMS.iter().find(|(name, _)| *name == package);
        return program.is_some_and(|(_, program)| sh::has(program));
    }
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat=${db:Status-Status}", package]);
    // The word appears once for each architecture for which the package is installed.
    sh::capture(&mut query).is_ok_and(|status| status.starts_with("installed"))
}

fn install(packages: &[&str]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    let list = packages.join(" ");
    if !sh::is_debian() {
        bail!(
            "this is neither Debian nor Ubuntu, so install by hand what these packages of Debian \
             bring: {list}"
        );
    }
    sh::step(&format!("installing {list}"));
    // `--no-remove`: rustc-web conflicts with rustc and rustup, which may be the user's own.
    // A machine that has just booted holds dpkg's lock for a while.
    let script = format!(
        "apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -o Dpkg::Use-Pty=0 \
         -o DPkg::Lock::Timeout=300 --no-install-recommends --no-remove {list}"
    );
    let mut command = if sh::is_root() {
        Command::new("sh")
    } else if sh::has("sudo") {
        let mut sudo = Command::new("sudo");
        sudo.arg("sh");
        sudo
    } else {
        bail!("packages are missing and there is no sudo: run as root `apt-get install {list}`");
    };
    sh::run(command.args(["-c", &script])).with_context(|| {
        let other = if packages.contains(&RUSTC_PACKAGES[0]) {
            format!("; if it has no {}, run `{RUST_SRC}`", RUSTC_PACKAGES[0])
        } else {
            String::new()
        };
        format!("failed to install packages: see what apt says above{other}")
    })
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
        .env("PATH", toolchain::llvm_first())
        // cargo must not build this into the repository's target directory, even if the user has set one.
        .env_remove("CARGO_TARGET_DIR")
        .current_dir(env::temp_dir());
    sh::run(&mut cargo)
}

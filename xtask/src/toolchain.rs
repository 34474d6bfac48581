//! Finds compilers and a linker for BPF. Rust has the target, but none of rustup's toolchains includes `core` for it,
//! and the linker is a separate program that must support the version of LLVM bitcode that rustc writes.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, anyhow, bail};

use crate::sh;

pub const TARGET: &str = "bpfel-unknown-none";

/// The packages of Debian 12 for a compiler with a prebuilt `core`. The three belong together: rustc-web 1.96 writes the
/// bitcode of LLVM 22, and bpf-linker 0.13 can be built with that.
pub const LLVM: &str = "22";
pub const BPF_LINKER: &str = "0.13.0";
pub const RUSTC_PACKAGES: &[&str] = &["rustc-web", "libstd-rust-web-dev-bpf", "rust-web-clippy"];

/// The command that installs a nightly with the sources of `core`, on any distribution.
pub const RUST_SRC: &str =
    "rustup toolchain install nightly --profile minimal --component rust-src,clippy";

/// A way to compile for BPF.
pub enum Compiler {
    /// A nightly that can build `core` itself: rustup's, with `rust-src`.
    Nightly,
    /// A rustc whose sysroot has `core` for BPF already.
    Prebuilt { rustc: PathBuf },
}

impl Compiler {
    /// Finds a toolchain, or returns an error that says how to get one.
    pub fn find() -> Result<Self> {
        if let Some(nightly) = Self::nightly() {
            return Ok(nightly);
        }
        for rustc in ["/usr/bin/rustc", "rustc"] {
            if sysroot(Command::new(rustc)).is_some_and(|root| has_target(&root)) {
                return Ok(Self::Prebuilt {
                    rustc: rustc.into(),
                });
            }
        }
        if sh::is_debian() {
            bail!(
                "no Rust compiler for {TARGET}: run `cargo xtask setup`; or by hand as root \
                 `apt-get install {}`, or `{RUST_SRC}`",
                RUSTC_PACKAGES.join(" ")
            );
        }
        bail!("no Rust compiler for {TARGET}: run `{RUST_SRC}`, then `cargo xtask setup`")
    }

    /// Returns rustup's nightly, if it has the sources of `core`.
    pub fn nightly() -> Option<Self> {
        let mut rustc = Command::new("rustc");
        // The query for a missing nightly must not download one.
        rustc.arg("+nightly").env("RUSTUP_AUTO_INSTALL", "0");
        let source = sysroot(rustc)?.join("lib/rustlib/src/rust/library/core");
        source.exists().then_some(Self::Nightly)
    }

    /// Describes the toolchain in one line.
    pub fn describe(&self) -> String {
        match self {
            Self::Nightly => "rustup's nightly, building core from rust-src".into(),
            Self::Prebuilt { rustc } => format!("{} with its prebuilt core", rustc.display()),
        }
    }

    /// Returns a cargo that compiles for BPF: `build`, or `clippy` where it is available.
    pub fn cargo(&self, verb: &str) -> Command {
        let mut command = match (self, verb) {
            // Debian's own clippy matches Debian's rustc; rustup's clippy could not read its metadata.
            (Self::Prebuilt { .. }, "clippy") => Command::new("/usr/bin/cargo-clippy"),
            _ => Command::new("cargo"),
        };
        // The running cargo has set these variables for the toolchain of the host's crates.
        for name in [
            "RUSTUP_TOOLCHAIN",
            "RUSTC",
            "RUSTC_WRAPPER",
            "RUSTC_WORKSPACE_WRAPPER",
            "RUSTFLAGS",
            "CARGO",
        ] {
            command.env_remove(name);
        }
        match self {
            Self::Nightly => {
                command.args(["+nightly", verb, "-Z", "build-std=core"]);
            }
            Self::Prebuilt { rustc } => {
                // `RUSTC_BOOTSTRAP` is set because aya-ebpf needs features that are not stable for this target.
                command
                    .env("RUSTC", rustc)
                    .env("RUSTC_BOOTSTRAP", "1")
                    .arg(verb);
            }
        }
        command.args(["--release", "--target", TARGET]);
        command
    }
}

/// Returns the user's bpf-linker, or the one that `setup` installed.
pub fn linker() -> Result<PathBuf> {
    let installed = sh::cache_dir()?.join("tools/bin");
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain([installed])
        .map(|dir| dir.join("bpf-linker"))
        .find(|file| file.is_file())
        .ok_or_else(|| {
            let by_hand = format!(
                "cargo install bpf-linker --version {BPF_LINKER} --locked --no-default-features \
                 --features llvm-{LLVM}"
            );
            if sh::is_debian() {
                anyhow!(
                    "no bpf-linker: run `cargo xtask setup`; or by hand \
                     `LLVM_PREFIX=/usr/lib/llvm-{LLVM} {by_hand}`"
                )
            } else {
                anyhow!(
                    "no bpf-linker: install LLVM {LLVM} with its headers, then run \
                     `LLVM_PREFIX=$(llvm-config --prefix) {by_hand}`"
                )
            }
        })
}

/// Returns `PATH` with the LLVM of bpf-linker's build in front.
pub fn llvm_first() -> OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    let llvm = PathBuf::from(format!("/usr/lib/llvm-{LLVM}/bin"));
    env::join_paths([llvm].into_iter().chain(env::split_paths(&path))).unwrap_or(path)
}

fn sysroot(mut rustc: Command) -> Option<PathBuf> {
    rustc
        .args(["--print", "sysroot"])
        .env_remove("RUSTUP_TOOLCHAIN");
    sh::capture(&mut rustc)
        .ok()
        .map(|path| PathBuf::from(path.trim()))
}

fn has_target(sysroot: &Path) -> bool {
    sysroot
        .join("lib/rustlib")
        .join(TARGET)
        .join("lib")
        .exists()
}

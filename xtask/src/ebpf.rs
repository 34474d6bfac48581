//! Builds the BPF object, and the binary that carries it.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::SystemTime,
};

use anyhow::{Context, Result};

use crate::{
    setup::{self, Need},
    sh,
    toolchain::{self, Compiler, TARGET},
};

/// The crates that are compiled for BPF: the shipped programs, and those with which the benchmark injects frames.
pub const SHIPPED: &str = "vlanfast-ebpf";
pub const BENCH: &str = "bench-ebpf";

/// The layout of the maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    Current,
    /// A layout as a later version may have it, for the tests of upgrades (feature `next-layout`).
    Next,
}

impl Layout {
    const fn features(self) -> &'static [&'static str] {
        match self {
            Self::Current => &[],
            Self::Next => &["--features", "next-layout"],
        }
    }

    /// The name of the binary and of the object in it.
    const fn name(self) -> &'static str {
        match self {
            Self::Current => "vlanfast",
            Self::Next => "vlanfast-next",
        }
    }
}

/// Builds the BPF object into `target/bpf`, where the loader's build script finds it.
pub fn build_object(layout: Layout) -> Result<PathBuf> {
    let compiler = Compiler::find()?;
    let linker = toolchain::linker()?;
    sh::step(&format!(
        "BPF object of {}: {}, linked by {}",
        layout.name(),
        compiler.describe(),
        linker.display()
    ));
    let mut build = cargo(&compiler, SHIPPED, "build")?;
    link(build.args(layout.features()), SHIPPED, layout.name())
}

/// Builds the benchmark's own programs.
pub fn build_bench_object() -> Result<PathBuf> {
    link(
        &mut cargo(&Compiler::find()?, BENCH, "build")?,
        BENCH,
        "bench",
    )
}

/// Builds a BPF crate and copies its object to its place in `target/bpf`.
fn link(build: &mut Command, package: &str, name: &str) -> Result<PathBuf> {
    sh::run(build).with_context(|| {
        format!(
            "failed to build the BPF object (if it is the linker that fails: {} must know an LLVM \
             as new as that of `rustc -vV`)",
            toolchain::linker().unwrap_or_default().display()
        )
    })?;
    let target = sh::workspace().join("target");
    let linked = target
        .join("bpf-build")
        .join(TARGET)
        .join("release")
        .join(package);
    let object = target.join("bpf").join(name).with_extension("o");
    fs::create_dir_all(target.join("bpf")).context("failed to make target/bpf")?;
    let bytes =
        fs::read(&linked).with_context(|| format!("failed to read {}", linked.display()))?;
    // The object is written anew even if it is unchanged, because the build script compares times. If nothing was
    // built since, it is left alone, so that the loader is not built again for nothing.
    let manifest = sh::workspace().join(package).join("Cargo.toml");
    let written = modified(&object);
    if written > modified(&linked).max(modified(&manifest))
        && fs::read(&object).is_ok_and(|old| old == bytes)
    {
        return Ok(object);
    }
    fs::write(&object, bytes).with_context(|| format!("failed to write {}", object.display()))?;
    Ok(object)
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).ok()?.modified().ok()
}

/// Returns a cargo command for a BPF crate.
pub fn cargo(compiler: &Compiler, package: &str, verb: &str) -> Result<Command> {
    let mut command = compiler.cargo(verb);
    let flags = [
        format!("-Clinker={}", toolchain::linker()?.display()),
        "-Cdebuginfo=2".into(),
        "-Clink-arg=--btf".into(),
        "--cfg".into(),
        format!("bpf_target_arch=\"{}\"", env::consts::ARCH),
    ];
    command
        .current_dir(sh::workspace().join(package))
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .env("CARGO_TARGET_DIR", sh::workspace().join("target/bpf-build"))
        .env("PATH", toolchain::llvm_first())
        .arg("--locked");
    Ok(command)
}

/// Builds the binary and returns its path.
pub fn build(release: bool) -> Result<PathBuf> {
    setup::ensure(Need::Build)?;
    let binary = build_binary(Layout::Current, release)?;
    let size = fs::metadata(&binary)
        .with_context(|| format!("failed to find {}", binary.display()))?
        .len();
    let shown = binary.strip_prefix(sh::workspace()).unwrap_or(&binary);
    println!("    {}, {:.1} MB", shown.display(), size as f64 / 1e6);
    Ok(binary)
}

/// Builds the binary to which the tests upgrade. This comes before the other build, because cargo gives both the same
/// name.
pub fn build_next(release: bool) -> Result<PathBuf> {
    let built = build_binary(Layout::Next, release)?;
    let binary = built.with_file_name(Layout::Next.name());
    fs::copy(&built, &binary).with_context(|| format!("failed to write {}", binary.display()))?;
    Ok(binary)
}

fn build_binary(layout: Layout, release: bool) -> Result<PathBuf> {
    build_object(layout)?;
    let mut cargo = Command::new("cargo");
    cargo
        .current_dir(sh::workspace())
        .args(["build", "--locked", "--package", "vlanfast"])
        .args(layout.features());
    if release {
        cargo.arg("--release");
    }
    sh::step(layout.name());
    sh::run(&mut cargo)?;
    let profile = if release { "release" } else { "debug" };
    Ok(host_target()?.join(profile).join("vlanfast"))
}

/// Returns cargo's target directory for the host's crates, which the user may have set in more than one place.
fn host_target() -> Result<PathBuf> {
    let mut cargo = Command::new("cargo");
    cargo
        .current_dir(sh::workspace())
        .args(["metadata", "--no-deps", "--format-version", "1"]);
    let metadata: serde_json::Value = serde_json::from_str(&sh::capture(&mut cargo)?)
        .context("failed to read what `cargo metadata` says")?;
    let target = metadata["target_directory"].as_str();
    Ok(target
        .context("`cargo metadata` names no target directory")?
        .into())
}

//! Builds the BPF object, and the binary that carries it.

use std::{env, fs, path::PathBuf, process::Command};

use anyhow::{Context, Result};

use crate::{
    setup::{self, Need},
    sh,
    toolchain::{self, Compiler, LLVM, TARGET},
};

/// Builds the BPF object into `target/bpf/vlanfast.o`, where the loader's build script finds it.
pub fn build_object() -> Result<PathBuf> {
    let compiler = Compiler::find()?;
    let linker = toolchain::linker()?;
    sh::step(&format!(
        "BPF object: {}, linked by {}",
        compiler.describe(),
        linker.display()
    ));
    sh::run(&mut cargo(&compiler, "build")?).with_context(|| {
        format!(
            "failed to build the BPF object (if it is the linker that fails: {} must know an LLVM \
             as new as that of `rustc -vV`)",
            linker.display()
        )
    })?;
    let target = sh::workspace().join("target");
    let linked = target
        .join("bpf-build")
        .join(TARGET)
        .join("release/vlanfast-ebpf");
    let object = target.join("bpf/vlanfast.o");
    fs::create_dir_all(target.join("bpf")).context("failed to make target/bpf")?;
    // Written anew even where it is the same: the build script goes by its time.
    let bytes =
        fs::read(&linked).with_context(|| format!("failed to read {}", linked.display()))?;
    fs::write(&object, bytes).with_context(|| format!("failed to write {}", object.display()))?;
    Ok(object)
}

/// A cargo for the BPF crate, ready to run.
pub fn cargo(compiler: &Compiler, verb: &str) -> Result<Command> {
    let mut command = compiler.cargo(verb);
    let flags = [
        format!("-Clinker={}", toolchain::linker()?.display()),
        "-Cdebuginfo=2".into(),
        "-Clink-arg=--btf".into(),
        "--cfg".into(),
        format!("bpf_target_arch=\"{}\"", env::consts::ARCH),
    ];
    command
        .current_dir(sh::workspace().join("vlanfast-ebpf"))
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .env("CARGO_TARGET_DIR", sh::workspace().join("target/bpf-build"))
        .env("PATH", llvm_first())
        .arg("--locked");
    Ok(command)
}

/// Builds the binary and says where it is.
pub fn build(release: bool) -> Result<PathBuf> {
    setup::ensure(Need::Build)?;
    build_object()?;
    let mut cargo = Command::new("cargo");
    cargo
        .current_dir(sh::workspace())
        .args(["build", "--locked", "--package", "vlanfast"]);
    if release {
        cargo.arg("--release");
    }
    sh::step("vlanfast");
    sh::run(&mut cargo)?;
    let profile = if release { "release" } else { "debug" };
    let binary = host_target()?.join(profile).join("vlanfast");
    let size = fs::metadata(&binary)
        .with_context(|| format!("failed to find {}", binary.display()))?
        .len();
    let shown = binary.strip_prefix(sh::workspace()).unwrap_or(&binary);
    println!("    {}, {:.1} MB", shown.display(), size as f64 / 1e6);
    Ok(binary)
}

/// Where cargo puts the host's crates, which the user may have set in more than one place.
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

/// `PATH` with the LLVM that bpf-linker was built with in front.
pub fn llvm_first() -> std::ffi::OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    let llvm = PathBuf::from(format!("/usr/lib/llvm-{LLVM}/bin"));
    env::join_paths([llvm].into_iter().chain(env::split_paths(&path))).unwrap_or(path)
}

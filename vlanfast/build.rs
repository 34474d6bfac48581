//! Embeds the BPF object, which `cargo xtask build-ebpf` has built with a toolchain of its own. If the object is missing or
//! older than its source, the build fails and names the command to run.

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

fn main() {
    let workspace = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default()).join("..");
    let object = workspace.join(match env::var_os("CARGO_FEATURE_NEXT_LAYOUT") {
        None => "target/bpf/vlanfast.o",
        Some(_) => "target/bpf/vlanfast-next.o",
    });
    let sources = [
        workspace.join("vlanfast-ebpf/src"),
        workspace.join("vlanfast-common/src"),
        workspace.join("vlanfast-ebpf/Cargo.toml"),
    ];
    for path in sources.iter().chain([&object]) {
        println!("cargo::rerun-if-changed={}", path.display());
    }
    match (
        modified(&object),
        sources.iter().filter_map(|path| newest(path)).max(),
    ) {
        (None, _) => {
            println!("cargo::error=the BPF object is not built yet: run `cargo xtask build`")
        }
        (Some(built), Some(changed)) if built < changed => println!(
            "cargo::error=the BPF object is older than its source: run `cargo xtask build`"
        ),
        _ => match object.canonicalize() {
            Ok(path) => println!("cargo::rustc-env=VLANFAST_OBJECT={}", path.display()),
            Err(error) => println!("cargo::error={}: {error}", object.display()),
        },
    }
}

/// The time at which `path` or anything below it was last changed.
fn newest(path: &Path) -> Option<SystemTime> {
    let below = fs::read_dir(path)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| newest(&entry.path()));
    match path.is_dir() {
        true => below.max(),
        false => modified(path),
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).ok()?.modified().ok()
}

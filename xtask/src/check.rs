//! `cargo xtask check`: formatting, the layout of the code, and lints.

use std::{path::Path, process::Command};

use anyhow::{Result, bail};

use crate::{
    ebpf, layout,
    setup::{self, Need},
    sh,
    toolchain::Compiler,
};

pub fn check() -> Result<()> {
    setup::ensure(Need::Build)?;
    sh::step("rustfmt");
    for package in [".", ebpf::SHIPPED, ebpf::BENCH, "fuzz"] {
        let mut cargo = cargo(package);
        sh::run(cargo.args(["fmt", "--all", "--check"]))?;
    }

    sh::step("layout");
    let wrong = layout::violations(&sh::workspace())?;
    if !wrong.is_empty() {
        wrong.iter().for_each(|line| println!("{line}"));
        bail!(
            "{} violations of the rules for the code's layout: see above",
            wrong.len()
        );
    }

    // The loader embeds the object, so its lints need the object too.
    ebpf::build_object(ebpf::Layout::Current)?;
    sh::step("clippy: host");
    let clippy = [
        "clippy",
        "--locked",
        "--workspace",
        "--all-targets",
        "--quiet",
    ];
    sh::run(cargo(".").args(clippy).args(["--", "--deny", "warnings"]))?;
    sh::step("clippy: BPF");
    for package in [ebpf::SHIPPED, ebpf::BENCH] {
        let mut bpf = ebpf::cargo(&Compiler::find()?, package, "clippy")?;
        sh::run(bpf.args(["--quiet", "--", "--deny", "warnings"]))?;
    }
    println!("everything is in order");
    Ok(())
}

fn cargo(package: impl AsRef<Path>) -> Command {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(sh::workspace().join(package));
    cargo
}

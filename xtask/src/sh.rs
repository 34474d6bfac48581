//! Runs other programs, and finds the repository and the cache.

use std::{
    env, fs,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

/// The root of the repository.
pub fn workspace() -> PathBuf {
    // The variable of `cargo run` takes precedence: clones that share a target directory share the binary too, which
    // would otherwise work on the clone in which it was compiled.
    let manifest = env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    manifest.parent().unwrap_or(&manifest).to_owned()
}

/// The directory for downloads and tools that all clones share.
pub fn cache_dir() -> Result<PathBuf> {
    let dir = env::var_os("VLANFAST_CACHE")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("XDG_CACHE_HOME")?).join("vlanfast")))
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache/vlanfast")))
        .context("no place for the cache: set VLANFAST_CACHE to a directory")?;
    fs::create_dir_all(&dir).with_context(|| format!("failed to make {}", dir.display()))?;
    Ok(dir)
}

/// Runs a program with inherited output.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("failed to start `{}`", show(command)))?;
    if !status.success() {
        bail!("`{}` failed: {status}", show(command));
    }
    Ok(())
}

/// Runs a program and returns its standard output.
pub fn capture(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("failed to start `{}`", show(command)))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.trim().lines().last().unwrap_or_default().to_owned();
        bail!("`{}` failed: {}: {last}", show(command), output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Prints a line about the current step.
pub fn step(text: &str) {
    println!("==> {text}");
}

/// Whether this process is root.
pub fn is_root() -> bool {
    capture(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0")
}

/// Returns the start of a command that runs as root.
pub fn as_root(what: &str) -> Result<Command> {
    match (is_root(), has("sudo")) {
        (true, _) => Ok(Command::new("env")),
        (false, true) => {
            let mut sudo = Command::new("sudo");
            sudo.arg("env");
            Ok(sudo)
        }
        (false, false) => bail!("{what} needs root and there is no sudo: run it as root"),
    }
}

/// Checks whether packages have the names and the tools of Debian and Ubuntu here.
pub fn is_debian() -> bool {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    release
        .lines()
        .filter_map(|line| line.strip_prefix("ID=").or(line.strip_prefix("ID_LIKE=")))
        .flat_map(|ids| ids.trim_matches('"').split(' '))
        .any(|id| id == "debian" || id == "ubuntu")
}

/// Checks whether a program is on `PATH`.
pub fn has(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// Returns the command as a user would type it.
pub fn show(command: &Command) -> String {
    let words = [command.get_program()]
        .into_iter()
        .chain(command.get_args());
    words
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}

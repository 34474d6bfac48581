//! Builds the test programs and finds them in cargo's output.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::sh;

/// Builds the tests that need root and returns their executables by target name.
pub fn tests() -> Result<BTreeMap<String, PathBuf>> {
    let args = [
        "test",
        "--locked",
        "-p",
        "vlanfast-tests",
        "--no-run",
        "--message-format=json-render-diagnostics",
    ];
    let mut command = Command::new("cargo");
    command
        .args(args)
        .current_dir(sh::workspace())
        .stderr(Stdio::inherit());
    let what = sh::show(&command);
    let output = command
        .output()
        .with_context(|| format!("starting `{what}`"))?;
    if !output.status.success() {
        bail!(
            "building with `{what}` failed ({}); see the compiler's messages above",
            output.status
        );
    }
    Ok(executables(&String::from_utf8_lossy(&output.stdout)))
}

fn executables(messages: &str) -> BTreeMap<String, PathBuf> {
    let parse = |line| {
        let message: Value = serde_json::from_str(line).ok()?;
        let kind = message["target"]["kind"][0].as_str()?;
        let name = message["target"]["name"].as_str()?.to_owned();
        let path = PathBuf::from(message["executable"].as_str()?);
        (kind == "test").then_some((name, path))
    };
    messages.lines().filter_map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_messages_give_the_executables() {
        let text = r#"{"reason":"compiler-artifact","target":{"kind":["test"],"name":"kernel"},"executable":"/t/kernel-1"}
{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"vlanfast_tests"},"executable":"/t/lib-1"}
{"reason":"compiler-artifact","target":{"kind":["test"],"name":"netns"},"executable":null}
not json
{"reason":"build-finished","success":true}"#;
        let found = executables(text);
        assert_eq!(found.len(), 1);
        assert_eq!(found["kernel"], PathBuf::from("/t/kernel-1"));
    }
}

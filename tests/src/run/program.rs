//! Runs the program under test as a user would.

use std::{
    env,
    fs::File,
    io::{BufRead, BufReader, Read, Seek},
    process::{Child, ChildStdout, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::{
    net::{
        namespace::{Netns, enter},
        tally::{CounterKey, Sum, Sums},
    },
    run::residue,
};

/// This is longer than anything takes under emulation, but a hang still ends.
const PATIENCE: Duration = Duration::from_secs(60);

/// Returns the path of the binary that the runner built.
pub fn binary() -> String {
    env::var("VLANFAST_BIN").expect("VLANFAST_BIN names the binary: run `cargo xtask test`")
}

/// Returns the path of the binary whose maps have another layout, as a later version may have.
pub fn next_binary() -> String {
    env::var("VLANFAST_NEXT_BIN").expect("VLANFAST_NEXT_BIN names it: run `cargo xtask test`")
}

/// How a run of the program ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Runs `vlanfast` in a namespace to its end.
pub fn vlanfast(netns: &Netns, arguments: &[&str]) -> Result<Ended> {
    end(netns.command(&binary()).args(arguments))
}

/// Detaches vlanfast from a trunk, whichever process attached it.
pub fn detach(netns: &Netns, trunk: &str) -> Result<()> {
    let ended = vlanfast(netns, &["detach", trunk])?;
    ensure!(
        ended.code == Some(0),
        "vlanfast detach {trunk}: {}",
        ended.stderr
    );
    Ok(())
}

/// Runs any command to its end.
pub fn end(command: &mut Command) -> Result<Ended> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("failed to start {:?}", command.get_program()))?;
    Ok(Ended {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// A running `vlanfast attach`. Dropped without [`Attached::stop`], it is killed and detached.
pub struct Attached {
    child: Child,
    binary: String,
    stdout: BufReader<ChildStdout>,
    stderr: File,
    /// The trunk's present name; a test may rename the trunk.
    pub trunk: String,
    /// The namespace's name.
    netns: String,
    /// The lines that it printed when it had attached.
    pub said: String,
}

impl Attached {
    /// Attaches and waits until the process reports it.
    pub fn start(netns: &Netns, trunk: &str, arguments: &[&str]) -> Result<Self> {
        Self::start_by(binary(), netns, trunk, arguments)
    }

    /// Attaches with another binary and waits until the process reports it.
    pub fn start_by(
        binary: String,
        netns: &Netns,
        trunk: &str,
        arguments: &[&str],
    ) -> Result<Self> {
        // stderr goes to a file. The verifier's log may be longer than a pipe, and a thread that reads a pipe makes
        // every system call of this process slower, which the benchmark measures.
        let stderr = tempfile::tempfile().context("failed to make a file for its errors")?;
        let mut command = netns.command(&binary);
        command.args(["attach", trunk]).args(arguments);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr.try_clone()?)
            .spawn()
            .context("failed to start vlanfast attach")?;
        let mut stdout = BufReader::new(child.stdout.take().context("stdout is piped")?);
        let mut said = String::new();
        while !said.contains("Ctrl-C") {
            if stdout.read_line(&mut said)? == 0 {
                let status = child.wait()?;
                let error = written(&stderr)?;
                bail!(
                    "vlanfast attach {trunk} {arguments:?} ended ({status}): {}",
                    error.trim()
                );
            }
        }
        ensure!(
            said.starts_with(&format!("{trunk}: attached")),
            "it said {said:?}"
        );
        residue::remember(child.id());
        let netns = netns.name.clone();
        Ok(Self {
            child,
            binary,
            stdout,
            stderr,
            trunk: trunk.to_owned(),
            netns,
            said,
        })
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// Returns the output of `status --json`, run as another process.
    pub fn status(&self) -> Result<Value> {
        self.json(&["status", &self.trunk, "--json"])
    }

    /// Returns the counters of ingress and egress from `counters --json`, run as another process.
    pub fn counters(&self) -> Result<(Sums, Sums)> {
        let rows = self.json(&["counters", &self.trunk, "--json"])?;
        let (mut rx, mut tx) = (Sums::new(), Sums::new());
        for row in rows.as_array().context("counters are an array")? {
            let key = match (row["vlan"].as_u64(), row["tag"].as_str()) {
                (Some(vlan), _) => CounterKey::Vlan(vlan as u16),
                (None, Some("802.1ad")) => CounterKey::Service,
                (None, Some("truncated")) => CounterKey::Truncated,
                other => bail!("a row for {other:?}"),
            };
            for (side, sums) in [("rx", &mut rx), ("tx", &mut tx)] {
                let number = |value: &Value| value.as_u64().context("a count is a number");
                let packets = &row[side]["packets"];
                let sum = Sum {
                    packets: [
                        number(&packets["unicast"])?,
                        number(&packets["multicast"])?,
                        number(&packets["broadcast"])?,
                    ],
                    bytes: number(&row[side]["bytes"])?,
                };
                if sum != Sum::default() {
                    sums.insert(key, sum);
                }
            }
        }
        Ok((rx, tx))
    }

    /// Returns the row of a VLAN in `counters --json`.
    pub fn row(&self, vid: u16) -> Result<Value> {
        let vlan = vid.to_string();
        let rows = self.json(&["counters", &self.trunk, "--vlan", &vlan, "--json"])?;
        Ok(rows[0].clone())
    }

    /// Returns the output of `endpoints --json`, run as another process.
    pub fn endpoints(&self) -> Result<Vec<Value>> {
        let rows = self.json(&["endpoints", &self.trunk, "--docker", "off", "--json"])?;
        Ok(rows.as_array().context("endpoints are an array")?.clone())
    }

    /// Returns the output of `flows --json`, run as another process.
    pub fn flows(&self) -> Result<Vec<Value>> {
        let rows = self.json(&["flows", &self.trunk, "--json"])?;
        Ok(rows.as_array().context("flows are an array")?.clone())
    }

    /// Returns how a hook is attached, according to `status`.
    pub fn kind(&self, hook: &str) -> Result<String> {
        let status = self.status()?;
        let hooks = status["hooks"].as_array().context("hooks are an array")?;
        let found = hooks.iter().find(|entry| entry["hook"] == hook);
        let kind = found.and_then(|entry| entry["kind"].as_str());
        Ok(kind
            .with_context(|| format!("{hook} is not attached: {status}"))?
            .to_owned())
    }

    fn json(&self, arguments: &[&str]) -> Result<Value> {
        let ended = end(enter(&self.netns, &self.binary).args(arguments))?;
        ensure!(
            ended.code == Some(0),
            "vlanfast {arguments:?}: {}",
            ended.stderr
        );
        serde_json::from_str(&ended.stdout).context("output is JSON")
    }

    /// Sends a signal and waits for an orderly end.
    pub fn stop_by(mut self, signal: Signal) -> Result<()> {
        residue::remember(self.child.id());
        kill(self.pid(), signal)?;
        let status = self.wait()?;
        ensure!(status.success(), "vlanfast attach ended with {status}");
        Ok(())
    }

    /// Ends the process as systemd would.
    pub fn stop(self) -> Result<()> {
        self.stop_by(Signal::SIGTERM)
    }

    /// Waits until the process ends by itself.
    pub fn end(mut self) -> Result<Ended> {
        let status = self.wait()?;
        Ok(Ended {
            code: status.code(),
            stdout: String::new(),
            stderr: written(&self.stderr)?,
        })
    }

    /// Kills the process.
    pub fn kill(mut self) -> Result<()> {
        residue::remember(self.child.id());
        kill(self.pid(), Signal::SIGKILL)?;
        self.wait().map(drop)
    }

    fn wait(&mut self) -> Result<std::process::ExitStatus> {
        let (tell, told) = mpsc::channel::<()>();
        let pid = self.pid();
        let watch = thread::spawn(move || {
            if told.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
                let _ = kill(pid, Signal::SIGKILL);
            }
        });
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest)?;
        let status = self.child.wait()?;
        drop(tell);
        let _ = watch.join();
        Ok(status)
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
            let _ = end(enter(&self.netns, &self.binary).args(["detach", &self.trunk]));
        }
    }
}

/// Returns everything that a process has printed by its end.
pub fn written(mut file: &File) -> Result<String> {
    file.rewind()?;
    let mut text = vec![];
    file.read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

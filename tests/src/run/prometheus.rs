//! A real Prometheus for a test, and the small HTTP client that queries it.

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::net::namespace::{Netns, in_netns};

/// This is longer than Prometheus takes to start under emulation.
const PATIENCE: Duration = Duration::from_secs(120);

/// A server that scrapes one exporter on this host every second; it is removed with its data when this is dropped.
pub struct Prometheus {
    child: Child,
    port: u16,
    dir: TempDir,
}

impl Prometheus {
    /// Starts the server on a loopback port and waits until it is ready.
    pub fn start(port: u16, exporter: u16, rules: &str) -> Result<Self> {
        let dir = TempDir::new().context("failed to make a directory")?;
        let config = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}\n\
             rule_files: [rules.yml]\n\
             scrape_configs: [{{job_name: vlanfast, static_configs: [{{targets: ['127.0.0.1:{exporter}']}}]}}]\n"
        );
        let file = |name: &str| dir.path().join(name);
        fs::write(file("prometheus.yml"), config).context("failed to write its config")?;
        fs::write(file("rules.yml"), rules).context("failed to write its rules")?;
        let log = fs::File::create(file("log")).context("failed to make its log")?;
        let child = Command::new("prometheus")
            .arg(format!(
                "--config.file={}",
                file("prometheus.yml").display()
            ))
            .arg(format!("--storage.tsdb.path={}", file("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("failed to start prometheus")?;
        let mut server = Self { child, port, dir };
        let start = Instant::now();
        while !matches!(get(port, "/-/ready"), Ok((200, _))) {
            let ended = server.child.try_wait()?;
            ensure!(
                ended.is_none() && start.elapsed() < PATIENCE,
                "prometheus does not start: {}",
                server.log()
            );
            thread::sleep(Duration::from_millis(200));
        }
        Ok(server)
    }

    /// Runs an instant query; returns the series of the resulting vector, each an object with `metric` and `value`.
    pub fn query(&self, query: &str) -> Result<Vec<Value>> {
        let data = self.api(&format!("/api/v1/query?query={}", percent(query)))?;
        let series = data["result"].as_array();
        Ok(series
            .with_context(|| format!("{query}: no vector in {data}"))?
            .clone())
    }

    /// Returns the alerting rules, each with its `health` and its `state`.
    pub fn rules(&self) -> Result<Vec<Value>> {
        let data = self.api("/api/v1/rules")?;
        let groups = data["groups"].as_array().context("no groups of rules")?;
        let rules = groups.iter().filter_map(|group| group["rules"].as_array());
        Ok(rules.flatten().cloned().collect())
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn api(&self, target: &str) -> Result<Value> {
        let (status, body) = get(self.port, target)?;
        ensure!(status == 200, "{target}: {status}: {body}");
        let mut answer: Value = serde_json::from_str(&body).context("its answer is no JSON")?;
        ensure!(answer["status"] == "success", "{target}: {answer}");
        Ok(answer["data"].take())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs `promtool` over a text and asserts that it succeeds; a linter that finds nothing prints nothing.
pub fn promtool(arguments: &[&str], stdin: &str) -> Result<String> {
    let mut child = Command::new("promtool")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("failed to start promtool")?;
    let mut pipe = child.stdin.take().context("stdin is piped")?;
    // promtool reads all of its input before it prints anything.
    pipe.write_all(stdin.as_bytes())?;
    drop(pipe);
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    if !output.status.success() {
        bail!("promtool {arguments:?} ({}): {said}", output.status);
    }
    Ok(said)
}

/// Sends a GET to a loopback port; returns status and body.
pub fn get(port: u16, target: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    // HTTP/1.0 sends nothing in chunks, and the end of the stream is the end of the body.
    write!(stream, "GET {target} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("an answer without a head")?;
    let status = head
        .split_whitespace()
        .nth(1)
        .and_then(|status| status.parse().ok());
    Ok((
        status.with_context(|| format!("no status in {head:?}"))?,
        body.to_owned(),
    ))
}

/// Sends a GET to the loopback device of a namespace.
pub fn get_in(netns: &Netns, port: u16, target: &'static str) -> Result<(u16, String)> {
    in_netns(&netns.path(), move || get(port, target))
}

/// Returns the value of a series of `/metrics`, by its name with its labels; `None` if there is none.
pub fn metric(netns: &Netns, port: u16, series: &str) -> Option<f64> {
    let (_, text) = get_in(netns, port, "/metrics").ok()?;
    let mut values = text.lines().filter_map(|line| line.strip_prefix(series));
    values.next()?.trim().parse().ok()
}

/// Percent-encodes everything but letters and digits (RFC 3986 section 2.1).
fn percent(text: &str) -> String {
    let encode = |byte: u8| match byte {
        byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

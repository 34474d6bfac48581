//! Drivers that refuse native XDP: `auto` uses TC and reports the reason, and `--ingress xdp` fails.

use std::{
    ffi::c_void,
    io,
    os::{fd::AsFd, unix::process::CommandExt},
    process::{Child, ChildStdout, Command, Stdio},
};

use anyhow::Result;
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        ptrace::{self, Options},
        signal::{Signal, kill},
        wait::{WaitStatus, waitpid},
    },
    unistd::Pid,
};
use vlanfast_tests::{
    in_the_lab,
    net::{
        namespace::{Netns, in_netns},
        topology::Wire,
    },
    run::{
        program::{Attached, Ended, binary, vlanfast},
        prometheus::get,
        residue::Residue,
    },
};

const METRICS_PORT: u16 = 9436;
const METRICS: &str = "127.0.0.1:9436";

/// A virtio trunk whose MTU is too large for its driver's XDP. The NIC belongs to the lab, and gets its former MTU
/// back.
struct Jumbo(Wire);

impl Jumbo {
    fn new() -> Self {
        let jumbo = Self(Wire::virtio().unwrap());
        jumbo.mtu(9000).unwrap();
        jumbo
    }

    fn mtu(&self, mtu: u32) -> Result<String> {
        let line = format!("ip link set {} mtu {mtu}", self.0.trunk);
        self.0.host.run(&line)
    }
}

impl Drop for Jumbo {
    fn drop(&mut self) {
        // A second panic during unwinding would abort the other tests too.
        let _ = self.mtu(1500);
    }
}

/// Scrapes the series of `vlanfast_attached` for ingress.
fn attached_metric(host: &Netns) -> String {
    let scrape = || get(METRICS_PORT, "/metrics");
    let (code, text) = in_netns(&host.path(), scrape).unwrap();
    assert_eq!(code, 200, "{text}");
    let is_it = |line: &&str| line.starts_with("vlanfast_attached{") && line.contains("ingress");
    let lines: Vec<_> = text.lines().filter(is_it).collect();
    assert_eq!(lines.len(), 1, "{lines:?}");
    lines[0].to_owned()
}

fn expected_metric(trunk: &str, mode: &str, reason: &str) -> String {
    format!(
        r#"vlanfast_attached{{trunk="{trunk}",hook="ingress",mode="{mode}",reason="{reason}"}} 1"#
    )
}

/// Checks for one line on stderr that has each of the words and ends with the remedy.
fn failed(ended: &Ended, code: i32, words: &[&str]) {
    let text = ended.stderr.trim_end();
    assert_eq!(ended.code, Some(code), "{ended:?}");
    assert!(text.starts_with("error: "), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.ends_with("use --ingress tc"), "{text}");
    for word in words {
        assert!(text.contains(word), "no '{word}' in: {text}");
    }
}

/// Checks the warning that TC is used instead, with each of the words.
fn fell_back(stderr: &str, words: &[&str]) {
    let is_note = |line: &&str| line.starts_with("note: ") && line.ends_with("; using TC instead");
    let note = stderr.lines().find(is_note);
    let note = note.unwrap_or_else(|| panic!("no such note in: {stderr}"));
    for word in words {
        assert!(note.contains(word), "no '{word}' in: {note}");
    }
}

#[test]
fn where_the_driver_refuses_native_xdp_auto_takes_tc_and_says_why() {
    in_the_lab!("no native xdp");
    let wire = Jumbo::new();
    let (host, trunk) = (&wire.0.host, &wire.0.trunk);
    let before = Residue::of(host, trunk).unwrap();
    let words = [trunk, "refused native XDP", "MTU too large"];
    let arguments = ["attach", trunk, "--ingress", "xdp", "--metrics", "off"];
    failed(&vlanfast(host, &arguments).unwrap(), 1, &words);
    before.wait_until_as_before(host, trunk).unwrap();

    let arguments = ["--ingress", "auto", "--metrics", METRICS];
    let start = || Attached::start(host, trunk, &arguments).unwrap();
    let is_tc = |attached: &Attached| {
        assert_eq!(attached.kind("ingress").unwrap(), super::tc());
        let ingress = &attached.status().unwrap()["ingress"];
        let reason = "not XDP: the driver has no native XDP, or refused it";
        assert_eq!(ingress["chosen"], "tc");
        assert_eq!(ingress["reason"], reason);
        assert!(attached.said.contains(reason), "{}", attached.said);
        let expected = expected_metric(trunk, super::tc(), "no-native-xdp");
        assert_eq!(attached_metric(host), expected);
    };
    let attached = start();
    is_tc(&attached);
    kill(attached.pid(), Signal::SIGKILL).unwrap();
    fell_back(&attached.end().unwrap().stderr, &words);

    // After a crash XDP is not tried again, even if the driver would accept it now; after a detach it is.
    wire.mtu(1500).unwrap();
    let attached = start();
    is_tc(&attached);
    attached.stop().unwrap();
    let attached = start();
    assert_eq!(attached.kind("ingress").unwrap(), "xdp-native");
    let expected = expected_metric(trunk, "xdp-native", "suitable");
    assert_eq!(attached_metric(host), expected);
    attached.stop().unwrap();
    before.wait_until_as_before(host, trunk).unwrap();
}

#[test]
fn where_the_driver_keeps_its_offload_auto_takes_tc_and_says_why() {
    in_the_lab!("keeps offload");
    let wire = Wire::virtio().unwrap();
    let (host, trunk) = (&wire.host, &wire.trunk);
    let before = Residue::of(host, trunk).unwrap();
    let words = [
        trunk,
        "refused to turn rx-vlan-offload off",
        "not supported",
    ];
    let start = |ingress| {
        let mut command = host.command(&binary());
        command.args(["attach", trunk, "--manage-offloads"]).args([
            "--ingress",
            ingress,
            "--metrics",
            METRICS,
        ]);
        start_with_fixed_offload(&mut command)
    };
    failed(&ended(start("xdp")), 4, &words);
    before.wait_until_as_before(host, trunk).unwrap();

    let child = start("auto");
    let status = vlanfast(host, &["status", trunk, "--json"]).unwrap();
    let metric = attached_metric(host);
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
    let ended = ended(child);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    fell_back(&ended.stderr, &words);
    let status: serde_json::Value = serde_json::from_str(&status.stdout).unwrap();
    let ingress = &status["ingress"];
    let reason = "not XDP: the driver refused to turn rx-vlan-offload off";
    assert_eq!(ingress["chosen"], "tc");
    assert_eq!(ingress["reason"], reason);
    assert_eq!(ingress["managed_offload"], false);
    assert_eq!(metric, expected_metric(trunk, super::tc(), "keeps-offload"));
    before.wait_until_as_before(host, trunk).unwrap();
}

fn ended(child: Child) -> Ended {
    let output = child.wait_with_output().unwrap();
    Ended {
        code: output.status.code(),
        stdout: String::new(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Starts a command that finds `rx-vlan-offload` on and cannot turn it off, because no driver of the lab behaves like
/// that. Returns the command once it prints something or ends.
fn start_with_fixed_offload(command: &mut Command) -> Child {
    // SAFETY: the closure makes one call between fork and exec, and does not allocate.
    unsafe {
        command.pre_exec(|| ptrace::traceme().map_err(io::Error::from));
    }
    let command = command.stdin(Stdio::null()).stdout(Stdio::piped());
    let child = command.stderr(Stdio::piped()).spawn().unwrap();
    let stdout = child.stdout.as_ref().unwrap();
    let pid = Pid::from_raw(child.id() as i32);
    // The process stops at the end of its first exec.
    let stopped = waitpid(pid, None).unwrap();
    assert!(matches!(stopped, WaitStatus::Stopped(..)), "{stopped:?}");
    let options =
        Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACEEXIT | Options::PTRACE_O_EXITKILL;
    ptrace::setoptions(pid, options).unwrap();
    let (mut asked, mut signal) = (None, None);
    loop {
        ptrace::syscall(pid, signal.take()).unwrap();
        match waitpid(pid, None).unwrap() {
            // Output on the pipe means that another thread has printed.
            WaitStatus::PtraceSyscall(_) if has_said_something(stdout) => break,
            WaitStatus::PtraceSyscall(_) => match call(pid) {
                Some((libc::SYS_ioctl, [_, libc::SIOCETHTOOL, request])) => {
                    asked = asks_for_flags(pid, request);
                }
                Some(_) => {}
                None => {
                    if let Some(value) = asked.take() {
                        let answer = ptrace::read(pid, value).unwrap();
                        ptrace::write(pid, value, answer | RX_VLAN << 32).unwrap();
                    }
                }
            },
            WaitStatus::PtraceEvent(..) => break,
            // nsenter executes the command, which is a second exec.
            WaitStatus::Stopped(_, Signal::SIGTRAP) => {}
            WaitStatus::Stopped(_, other) => signal = Some(other),
            end => panic!("{end:?}"),
        }
    }
    ptrace::detach(pid, None).unwrap();
    child
}

fn has_said_something(stdout: &ChildStdout) -> bool {
    let mut said = [PollFd::new(stdout.as_fd(), PollFlags::POLLIN)];
    poll(&mut said, PollTimeout::ZERO).unwrap() > 0
}

/// The values are those of `ETHTOOL_GFLAGS`, `ETHTOOL_SFLAGS` and `ETH_FLAG_RXVLAN` of
/// `include/uapi/linux/ethtool.h`.
const GET_FLAGS: u32 = 0x25;
const SET_FLAGS: u32 = 0x26;
const RX_VLAN: i64 = 1 << 8;

/// Returns number and arguments of the system call that begins; `None` at the exit of a call.
fn call(pid: Pid) -> Option<(i64, [u64; 3])> {
    let info = ptrace::syscall_info(pid).unwrap();
    if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
        return None;
    }
    // SAFETY: this is the valid field of the union at the entry of a call.
    let entry = unsafe { info.u.entry };
    let [first, second, third, ..] = entry.args;
    Some((entry.nr as i64, [first, second, third]))
}

/// Returns the address of the answer if the call is `ETHTOOL_GFLAGS`. Changes `ETHTOOL_SFLAGS` to a command that the
/// kernel does not have.
fn asks_for_flags(pid: Pid, request: u64) -> Option<*mut c_void> {
    // `ifr_data` of `struct ifreq` follows the name, and points to the command and its value.
    let data = (request + libc::IFNAMSIZ as u64) as *mut c_void;
    let value = ptrace::read(pid, data).unwrap() as *mut c_void;
    let words = ptrace::read(pid, value).unwrap();
    match words as u32 {
        GET_FLAGS => return Some(value),
        SET_FLAGS => ptrace::write(pid, value, words | 0xffff).unwrap(),
        _ => {}
    }
    None
}

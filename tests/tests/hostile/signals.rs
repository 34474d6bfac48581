//! A signal ends any phase, even when netlink is stalled, and nothing waits for ever.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    os::{
        fd::OwnedFd,
        unix::{fs::PermissionsExt, process::ExitStatusExt},
    },
    process::{Child, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    sys::signal::{Signal, kill},
    unistd::{Pid, pipe2, write},
};
use vlanfast_tests::{
    net::topology::Wire,
    require,
    run::{
        foreign_program::detach_link,
        netlink_stall::NetlinkStall,
        pins::pins,
        program::{Attached, binary, detach, vlanfast, written},
        require::{in_the_lab, kernel_at_least},
        residue::Residue,
    },
};

/// Returns the time in which a signal must end a process; an emulated machine is slower at everything but waiting.
fn limit() -> Duration {
    Duration::from_millis(if in_the_lab() { 3_000 } else { 1_000 })
}

/// A vlanfast command that is stopped before it begins, and has a tracer.
struct Traced {
    child: Child,
    errors: File,
    stalled: NetlinkStall,
    /// Receives a message once the command reports that it is attached.
    attached: Receiver<()>,
}

impl Traced {
    fn start(wire: &Wire, arguments: &str) -> Self {
        let line = format!("kill -STOP $$; exec {} {arguments}", binary());
        let errors = tempfile::tempfile().unwrap();
        let mut child = wire
            .host
            .command("sh")
            .args(["-c", &line])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors.try_clone().unwrap())
            .spawn()
            .unwrap();
        let pid = Pid::from_raw(child.id() as i32);
        let start = Instant::now();
        let stopped = || {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            status.contains("State:\tT")
        };
        while !stopped() {
            assert!(
                start.elapsed() < Duration::from_secs(30),
                "it never stopped"
            );
            thread::sleep(Duration::from_millis(2));
        }
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (tell, attached) = mpsc::channel();
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if line.contains("Ctrl-C") {
                    let _ = tell.send(());
                }
            }
        });
        Self {
            stalled: NetlinkStall::attach(pid).unwrap(),
            child,
            errors,
            attached,
        }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    /// Returns the time until the process ended, and its exit code; kills it if it takes too long.
    fn end(&mut self) -> (Duration, Option<i32>) {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                assert_eq!(status.signal(), None, "it ended by {status}");
                // The process ended in order, and did not give up on a task that was stuck.
                let said = written(&self.errors).unwrap();
                assert!(!said.contains("told to end, and something"), "{said}");
                return (start.elapsed(), status.code());
            }
            if start.elapsed() > Duration::from_secs(20) {
                let _ = self.child.kill();
                panic!("it does not end");
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Checks whether a request was swallowed before the process was attached.
    fn is_stalled(&self) -> bool {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(60) {
            if self.stalled.swallowed() > 0 {
                return true;
            }
            if self.attached.try_recv().is_ok() {
                return false;
            }
            thread::sleep(Duration::from_millis(1));
        }
        panic!("it was neither stalled nor attached");
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const ATTACH: &str = "--docker off --metrics off";

#[test]
fn a_signal_ends_preparing_and_attaching_though_netlink_is_stalled() {
    require!("phases", nix::unistd::geteuid().is_root(), "needs root");
    let wire = Wire::veth().unwrap();
    let before = Residue::of(&wire.host, &wire.trunk).unwrap();
    let signals = [Signal::SIGTERM, Signal::SIGINT];
    let step = if in_the_lab() { 7 } else { 2 };
    let mut stalled = 0;
    for after in (0..).step_by(step) {
        let mut traced = Traced::start(&wire, &format!("attach {} {ATTACH}", wire.trunk));
        traced.stalled.stall_after(after);
        traced.signal(Signal::SIGCONT);
        if !traced.is_stalled() {
            break;
        }
        stalled += 1;
        let signal = signals[stalled % signals.len()];
        traced.signal(signal);
        let (took, code) = traced.end();
        assert!(
            took < limit(),
            "{took:?} by {signal} after {after} questions"
        );
        assert!(matches!(code, Some(0 | 1)), "{code:?}");
        drop(traced);
        detach(&wire.host, &wire.trunk).unwrap();
        before
            .wait_until_as_before(&wire.host, &wire.trunk)
            .unwrap();
    }
    assert!(stalled > 2, "the phases have more questions than {stalled}");
}

#[test]
fn a_signal_ends_running_and_removing_though_netlink_is_stalled() {
    require!("running", nix::unistd::geteuid().is_root(), "needs root");
    let wire = Wire::veth().unwrap();
    let before = Residue::of(&wire.host, &wire.trunk).unwrap();
    for (on_exit, signal, qdisc) in [
        ("detach", Signal::SIGTERM, "nothing"),
        ("detach", Signal::SIGINT, "clsact"),
        ("keep", Signal::SIGTERM, "nothing"),
    ] {
        // A foreign qdisc stays, and our filter that could not be removed from it is found again.
        let tc = |verb: &str| match qdisc {
            "clsact" => format!("tc qdisc {verb} dev {} clsact", wire.trunk),
            _ => "true".into(),
        };
        wire.host.run(&tc("add")).unwrap();
        let line = format!("attach {} {ATTACH} --on-exit {on_exit}", wire.trunk);
        let mut traced = Traced::start(&wire, &line);
        traced.signal(Signal::SIGCONT);
        assert!(!traced.is_stalled());
        traced.stalled.stall();
        // The signal comes in the middle of a request that is never answered.
        let start = Instant::now();
        while traced.stalled.swallowed() == 0 {
            assert!(start.elapsed() < Duration::from_secs(60), "it asks nothing");
            thread::sleep(Duration::from_millis(1));
        }
        traced.signal(signal);
        let (took, _) = traced.end();
        assert!(took < limit(), "{took:?} by {signal}");
        drop(traced);
        detach(&wire.host, &wire.trunk).unwrap();
        wire.host.run(&tc("del")).unwrap();
        before
            .wait_until_as_before(&wire.host, &wire.trunk)
            .unwrap();
    }
}

#[test]
fn no_request_to_a_stalled_netlink_waits_for_ever() {
    require!("verbs", nix::unistd::geteuid().is_root(), "needs root");
    let wire = Wire::veth().unwrap();
    let line = format!("attach {} {ATTACH} --on-exit keep", wire.trunk);
    let mut attached = Traced::start(&wire, &line);
    attached.signal(Signal::SIGCONT);
    assert!(!attached.is_stalled());
    for verb in ["status", "endpoints", "counters", "flows", "detach"] {
        let mut traced = Traced::start(&wire, &format!("{verb} {}", wire.trunk));
        traced.stalled.stall();
        traced.signal(Signal::SIGCONT);
        let (took, code) = traced.end();
        assert!(took < 4 * limit(), "{verb}: {took:?}");
        assert_eq!(code, Some(1), "{verb}");
    }
    attached.signal(Signal::SIGTERM);
    attached.end();
    detach(&wire.host, &wire.trunk).unwrap();
}

/// nohup and the background jobs of a shell start a program with ignored signals.
#[test]
fn a_signal_that_was_ignored_stays_ignored() {
    require!("ignored", nix::unistd::geteuid().is_root(), "needs root");
    let wire = Wire::veth().unwrap();
    let directory = tempfile::tempdir().unwrap();
    for (name, signal) in [("HUP", Signal::SIGHUP), ("INT", Signal::SIGINT)] {
        let script = directory.path().join(name);
        let line = format!("#!/bin/sh\ntrap '' {name}\nexec {} \"$@\"\n", binary());
        fs::write(&script, line).unwrap();
        fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
        let start = |binary: String| {
            let arguments = ["--docker", "off", "--metrics", "off"];
            Attached::start_by(binary, &wire.host, &wire.trunk, &arguments).unwrap()
        };
        let attached = start(script.to_str().unwrap().to_owned());
        kill(attached.pid(), signal).unwrap();
        thread::sleep(Duration::from_millis(1_500));
        let status = attached.status().unwrap();
        assert_eq!(status["pid"], attached.pid().as_raw(), "SIG{name}");
        assert_eq!(status["heartbeat"], "alive", "SIG{name}");
        attached.stop().unwrap();
        // A signal that was not ignored ends the process.
        start(binary()).stop_by(signal).unwrap();
    }
}

/// Returns a full pipe without a reader, and the end that keeps it open.
fn full_pipe() -> (OwnedFd, OwnedFd) {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).unwrap();
    while write(&writer, &[b'x'; 4096]).is_ok() {}
    // The next write blocks.
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
    (reader, writer)
}

#[test]
fn unread_output_does_not_block_the_process() {
    require!("unread", nix::unistd::geteuid().is_root(), "needs root");
    let wire = Wire::veth().unwrap();
    let before = Residue::of(&wire.host, &wire.trunk).unwrap();
    let (_reader, writer) = full_pipe();
    let start = || {
        let mut command = wire.host.command(&binary());
        command.args(["attach", &wire.trunk, "--docker", "off", "--metrics", "off"]);
        command.stdin(Stdio::null());
        command.stdout(writer.try_clone().unwrap());
        command.stderr(writer.try_clone().unwrap());
        command.spawn().unwrap()
    };
    let mut child = start();
    let heartbeat = || {
        let ended = vlanfast(&wire.host, &["status", &wire.trunk, "--json"]).unwrap();
        let status = serde_json::from_str(&ended.stdout).unwrap_or(serde_json::Value::Null);
        (status["heartbeat"] == "alive", status["hooks"].clone())
    };
    let wait_until_alive = || {
        let start = Instant::now();
        while !heartbeat().0 {
            assert!(start.elapsed() < Duration::from_secs(60), "it never began");
            thread::sleep(Duration::from_millis(50));
        }
    };
    wait_until_alive();
    // The process has a warning to print, and repairs the hook all the same.
    if kernel_at_least(6, 6) {
        detach_link(&pins(&wire.trunk).join("egress_link")).unwrap();
    } else {
        let line = format!("tc filter del dev {} egress", wire.trunk);
        wire.host.run(&line).unwrap();
    }
    thread::sleep(Duration::from_secs(6));
    let (is_alive, hooks) = heartbeat();
    assert!(is_alive && hooks.as_array().unwrap().len() == 2, "{hooks}");
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
    let start = Instant::now();
    let status = child.wait().unwrap();
    assert!(start.elapsed() < limit(), "{:?}", start.elapsed());
    assert!(status.success(), "{status}");
    before
        .wait_until_as_before(&wire.host, &wire.trunk)
        .unwrap();
}

//! The process that holds the lock on the pins, and processes that only seem to hold it.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    os::{
        fd::{AsRawFd, BorrowedFd},
        unix::process::CommandExt,
    },
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::{
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use vlanfast_tests::{
    net::topology::Wire,
    require,
    run::{
        pins::{is_pinned, pins},
        program::{Attached, detach, vlanfast},
        residue::Residue,
    },
};

use super::assert_refused;

/// Has a command hold a lock on a directory, which its children inherit.
fn with_lock(directory: &Path, command: &mut Command) -> Child {
    let directory = File::open(directory).unwrap();
    let fd = directory.as_raw_fd();
    // SAFETY: the closure makes two calls between fork and exec and does not allocate; the descriptor is open until
    // both are done.
    unsafe {
        command.pre_exec(move || {
            // The duplicate descriptor survives exec.
            let own = nix::unistd::dup(BorrowedFd::borrow_raw(fd))?;
            if libc::flock(own.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) != 0 {
                return Err(std::io::Error::last_os_error());
            }
            std::mem::forget(own);
            Ok(())
        });
    }
    command.stdin(Stdio::null()).spawn().unwrap()
}

/// Forks a process with a given id, which must be free; it waits for a signal to end it.
fn with_number(pid: i32) -> Pid {
    let numbers = [pid];
    // SAFETY: all zeroes is a valid value of the structure.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.exit_signal = libc::SIGCHLD as u64;
    arguments.set_tid = numbers.as_ptr() as u64;
    arguments.set_tid_size = 1;
    // SAFETY: the call forks, and the child only waits.
    let child = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw mut arguments,
            size_of_val(&arguments),
        )
    };
    if child == 0 {
        loop {
            // SAFETY: the call has no arguments.
            unsafe { libc::pause() };
        }
    }
    assert_eq!(child, i64::from(pid), "{}", std::io::Error::last_os_error());
    Pid::from_raw(pid)
}

fn is_alive(pid: Pid) -> bool {
    waitpid(pid, Some(WaitPidFlag::WNOHANG)).unwrap() == WaitStatus::StillAlive
}

/// Leaves a trunk whose process was killed.
fn left(wire: &Wire) {
    let attached = Attached::start(&wire.host, &wire.trunk, &["--metrics", "off"]);
    attached.unwrap().kill().unwrap();
}

#[test]
fn a_stranger_who_holds_the_lock_is_named_and_not_ended() {
    require!("stranger", nix::unistd::geteuid().is_root(), "needs root");
    let wire = Wire::veth().unwrap();
    left(&wire);
    let mut sleep = with_lock(&pins(&wire.trunk), Command::new("sleep").arg("600"));
    let ended = vlanfast(&wire.host, &["detach", &wire.trunk]).unwrap();
    let who = format!("process {} (sleep)", sleep.id());
    assert_refused("detach", &ended, 1, &[&who]);
    let ended = vlanfast(&wire.host, &["attach", &wire.trunk, "--metrics", "off"]).unwrap();
    assert_refused("attach", &ended, 7, &[&sleep.id().to_string()]);
    assert!(is_alive(Pid::from_raw(sleep.id() as i32)) && is_pinned(&wire.trunk));
    sleep.kill().unwrap();
    sleep.wait().unwrap();
    detach(&wire.host, &wire.trunk).unwrap();
    assert!(!is_pinned(&wire.trunk));
}

#[test]
fn a_reused_pid_is_not_the_lock_holder() {
    require!("number", nix::unistd::geteuid().is_root(), "needs root");
    let wire = Wire::veth().unwrap();
    left(&wire);
    // The shell has taken the lock and ends; its child keeps the lock.
    let mut shell = Command::new("sh");
    shell.args(["-c", "sleep 600 >/dev/null & echo $!"]);
    let mut shell = with_lock(&pins(&wire.trunk), shell.stdout(Stdio::piped()));
    let mut line = String::new();
    let stdout = shell.stdout.take().unwrap();
    BufReader::new(stdout).read_line(&mut line).unwrap();
    let heir = Pid::from_raw(line.trim().parse().unwrap());
    assert!(shell.wait().unwrap().success());

    let who = format!("process {heir} (sleep)");
    let ended = vlanfast(&wire.host, &["detach", &wire.trunk]).unwrap();
    assert_refused("detach, the number free", &ended, 1, &[&who]);
    let innocent = with_number(shell.id() as i32);
    let ended = vlanfast(&wire.host, &["detach", &wire.trunk]).unwrap();
    assert_refused("detach, the number used", &ended, 1, &[&who]);
    assert!(is_alive(innocent), "it was signalled");
    kill(heir, None).expect("the heir lives");

    kill(heir, Signal::SIGKILL).unwrap();
    // The lock is released when its holder ends.
    detach_when_free(&wire);
    assert!(is_alive(innocent), "it was signalled");
    kill(innocent, Signal::SIGKILL).unwrap();
    waitpid(innocent, None).unwrap();
    assert!(!is_pinned(&wire.trunk));
}

fn detach_when_free(wire: &Wire) {
    let start = Instant::now();
    while let Err(error) = detach(&wire.host, &wire.trunk) {
        assert!(start.elapsed() < Duration::from_secs(20), "{error:#}");
    }
}

#[test]
fn a_process_that_hangs_is_ended() {
    require!("hangs", nix::unistd::geteuid().is_root(), "needs root");
    let wire = Wire::veth().unwrap();
    let before = Residue::of(&wire.host, &wire.trunk).unwrap();
    let attached = Attached::start(&wire.host, &wire.trunk, &["--metrics", "off"]).unwrap();
    kill(attached.pid(), Signal::SIGSTOP).unwrap();
    let start = Instant::now();
    let ended = vlanfast(&wire.host, &["detach", &wire.trunk]).unwrap();
    let took = start.elapsed();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let killed = format!("process {} does not end and is killed", attached.pid());
    assert!(ended.stderr.contains(&killed), "{ended:?}");
    // An orderly end may take three seconds, and the rest is for a slow machine.
    assert!(
        took > Duration::from_secs(3) && took < Duration::from_secs(40),
        "{took:?}"
    );
    assert_eq!(attached.end().unwrap().code, None, "by a signal");
    assert!(!is_pinned(&wire.trunk));
    before
        .wait_until_as_before(&wire.host, &wire.trunk)
        .unwrap();
}

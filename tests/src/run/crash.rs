//! Kills a process right after the n-th change that it made to the machine.

use std::{
    io,
    os::{fd::AsFd, unix::process::CommandExt},
    process::{ChildStdout, Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        ptrace::{self, Options},
        wait::{WaitStatus, waitpid},
    },
    unistd::Pid,
};

use crate::run::{residue, syscall::Call};

/// Starts a command and kills it right after the n-th call, counted from 1, that others can see; returns the name of
/// that call. Returns `None` if the command printed something first, because then it is attached.
pub fn killed_after(command: &mut Command, step: usize) -> Result<Option<&'static str>> {
    // SAFETY: the closure makes one call between fork and exec, and does not allocate.
    unsafe {
        command.pre_exec(|| ptrace::traceme().map_err(io::Error::from));
    }
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("failed to start vlanfast under ptrace")?;
    let pid = Pid::from_raw(child.id() as i32);
    let stdout = child.stdout.take().context("stdout is piped")?;
    let found = follow(pid, step, &stdout);
    residue::remember(child.id());
    let _ = child.kill();
    child.wait()?;
    found
}

fn follow(pid: Pid, step: usize, stdout: &ChildStdout) -> Result<Option<&'static str>> {
    // The process stops at the end of its first exec.
    ensure!(matches!(waitpid(pid, None)?, WaitStatus::Stopped(..)));
    let options = Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_EXITKILL;
    ptrace::setoptions(pid, options)?;
    let (mut seen, mut pending) = (0, None);
    let mut signal = None;
    loop {
        ptrace::syscall(pid, signal.take())?;
        match waitpid(pid, None)? {
            WaitStatus::PtraceSyscall(_) => {
                // Output on the pipe means that another thread has printed.
                let mut said = [PollFd::new(stdout.as_fd(), PollFlags::POLLIN)];
                if poll(&mut said, PollTimeout::ZERO)? > 0 {
                    return Ok(None);
                }
                let call = Call::of(pid)?;
                if let Some(call) = call {
                    pending = call.changes(pid)?;
                } else if let Some(name) = pending.take() {
                    seen += 1;
                    if seen == step {
                        return Ok(Some(name));
                    }
                }
            }
            // nsenter executes the command, which is a second exec.
            WaitStatus::Stopped(_, nix::sys::signal::SIGTRAP) => {}
            WaitStatus::Stopped(_, other) => signal = Some(other),
            end => bail!("it ended by itself: {end:?}"),
        }
    }
}

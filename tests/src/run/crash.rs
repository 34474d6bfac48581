//! A process that dies at a chosen moment: right after the n-th thing it did to the machine.

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

/// Starts a command and kills it right after the n-th call, from 1, by which it changed what others
/// can see; says which call that was. `None` where it printed something first: by then it is attached.
pub fn killed_after(command: &mut Command, step: usize) -> Result<Option<&'static str>> {
    // SAFETY: one call between fork and exec, without memory.
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
    // It stops where its first exec ends.
    ensure!(matches!(waitpid(pid, None)?, WaitStatus::Stopped(..)));
    let options = Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_EXITKILL;
    ptrace::setoptions(pid, options)?;
    let (mut seen, mut pending) = (0, None);
    let mut signal = None;
    loop {
        ptrace::syscall(pid, signal.take())?;
        match waitpid(pid, None)? {
            WaitStatus::PtraceSyscall(_) => {
                // Another thread prints.
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
            // Another exec: nsenter's.
            WaitStatus::Stopped(_, nix::sys::signal::SIGTRAP) => {}
            WaitStatus::Stopped(_, other) => signal = Some(other),
            end => bail!("it ended by itself: {end:?}"),
        }
    }
}

//! A process that dies at a chosen moment: right after the n-th thing it did to the machine.

use std::{
    ffi::c_void,
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

/// A system call that begins.
pub(crate) struct Call {
    pub(crate) number: i64,
    pub(crate) arguments: [u64; 3],
}

impl Call {
    /// `None` where one ends.
    pub(crate) fn of(pid: Pid) -> Result<Option<Self>> {
        // `struct ptrace_syscall_info` of ptrace(2): three words, then number and arguments.
        let mut words = [0u64; 11];
        // SAFETY: the kernel writes no more than the size that is given.
        let size = unsafe {
            libc::ptrace(
                libc::PTRACE_GET_SYSCALL_INFO,
                pid.as_raw(),
                size_of_val(&words),
                words.as_mut_ptr(),
            )
        };
        ensure!(size > 0, "PTRACE_GET_SYSCALL_INFO failed");
        Ok(
            (words[0] as u8 == libc::PTRACE_SYSCALL_INFO_ENTRY).then_some(Self {
                number: words[3] as i64,
                arguments: [words[4], words[5], words[6]],
            }),
        )
    }

    /// What others will see of it, if anything.
    fn changes(&self, pid: Pid) -> Result<Option<&'static str>> {
        let [first, second, third] = self.arguments;
        Ok(match self.number {
            // `enum bpf_cmd` and `enum rtnetlink`'s types, of the kernel's `include/uapi/linux`.
            libc::SYS_bpf => match first {
                2 => Some("BPF_MAP_UPDATE_ELEM"),
                6 => Some("BPF_OBJ_PIN"),
                28 => Some("BPF_LINK_CREATE"),
                29 => Some("BPF_LINK_UPDATE"),
                34 => Some("BPF_LINK_DETACH"),
                _ => None,
            },
            libc::SYS_sendto => {
                let head = ptrace::read(pid, second as *mut c_void)? as u64;
                match (head >> 32) as u16 {
                    36 => Some("RTM_NEWQDISC"),
                    37 => Some("RTM_DELQDISC"),
                    44 => Some("RTM_NEWTFILTER"),
                    45 => Some("RTM_DELTFILTER"),
                    _ => None,
                }
            }
            libc::SYS_ioctl if second == libc::SIOCETHTOOL => {
                // `ifr_data` of struct ifreq, behind the name, leads to the number of the command.
                let data = ptrace::read(pid, (third + libc::IFNAMSIZ as u64) as *mut c_void)?;
                match ptrace::read(pid, data as *mut c_void)? as u32 {
                    0x26 => Some("ETHTOOL_SFLAGS"),
                    _ => None,
                }
            }
            libc::SYS_mkdirat => Some("mkdir"),
            libc::SYS_renameat | libc::SYS_renameat2 => Some("rename"),
            libc::SYS_unlinkat => Some("unlink"),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_mkdir => Some("mkdir"),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_rename => Some("rename"),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_unlink => Some("unlink"),
            _ => None,
        })
    }
}

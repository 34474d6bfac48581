//! Stalls netlink for a process: its requests are never answered, as when the kernel holds the RTNL lock for ever.

use std::{
    ffi::c_void,
    fs,
    io::IoSliceMut,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    ptr,
    sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    errno::Errno,
    sys::{
        ptrace::{self, Options},
        signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, kill, sigaction},
        uio::{RemoteIoVec, process_vm_readv},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{ForkResult, Pid, fork},
};

use crate::run::syscall::Call;

/// This is longer than it takes to stop a few threads under emulation.
const PATIENCE: Duration = Duration::from_secs(30);

/// A process under ptrace, which otherwise runs as before. Dropping this detaches the tracer.
///
/// The tracer is a process of its own, because a thread would share its children with the test: the test's wait for
/// the tracee would consume the stops that the tracer waits for, and the tracer would consume the exit status.
pub struct NetlinkStall {
    tracer: Pid,
    shared: &'static Shared,
}

/// Memory that this process and the tracer share.
#[derive(Default)]
struct Shared {
    phase: AtomicU32,
    /// The number of messages that still arrive before the stall begins.
    spared: AtomicU64,
    swallowed: AtomicU64,
}

const STARTING: u32 = 0;
const PASSING: u32 = 1;
const STALLING: u32 = 2;
const ENDING: u32 = 3;

impl NetlinkStall {
    /// Traces a process with all its threads, including those that it starts later.
    pub fn attach(pid: Pid) -> Result<Self> {
        let before = threads(pid)?;
        let shared = Shared::map()?;
        // SAFETY: the tracer takes no lock that another thread could have held during the fork.
        let tracer = match unsafe { fork() }.context("failed to start the tracer")? {
            ForkResult::Child => {
                let code = i32::from(trace(pid, &before, shared).is_err());
                // SAFETY: no code of this process may run here, not even destructors.
                unsafe { libc::_exit(code) }
            }
            ForkResult::Parent { child } => child,
        };
        let stalled = Self { tracer, shared };
        let start = Instant::now();
        while shared.phase.load(SeqCst) == STARTING {
            ensure!(
                stalled.is_tracing() && start.elapsed() < PATIENCE,
                "process {pid} can't be traced"
            );
            thread::sleep(Duration::from_millis(1));
        }
        for thread in threads(pid)? {
            let line = fs::read_to_string(format!("/proc/{pid}/task/{thread}/status"));
            let traced = format!("TracerPid:\t{tracer}\n");
            // A thread that has ended meanwhile has no file.
            ensure!(
                line.is_err() || line.is_ok_and(|line| line.contains(&traced)),
                "thread {thread} of process {pid} is not traced"
            );
        }
        Ok(stalled)
    }

    /// Swallows everything that the process sends to NETLINK_ROUTE from now on: the call reports success, and no
    /// answer ever comes. Notifications still arrive.
    pub fn stall(&self) {
        self.stall_after(0);
    }

    /// Stalls netlink after a number of further messages.
    pub fn stall_after(&self, messages: u64) {
        self.shared.spared.store(messages, SeqCst);
        self.shared.phase.store(STALLING, SeqCst);
    }

    /// Lets messages through again; swallowed ones stay unanswered.
    pub fn resume(&self) {
        self.shared.phase.store(PASSING, SeqCst);
    }

    /// Returns the number of messages swallowed so far.
    pub fn swallowed(&self) -> u64 {
        self.shared.swallowed.load(SeqCst)
    }

    fn is_tracing(&self) -> bool {
        matches!(
            waitpid(self.tracer, Some(WaitPidFlag::WNOHANG)),
            Ok(WaitStatus::StillAlive)
        )
    }
}

impl Drop for NetlinkStall {
    fn drop(&mut self) {
        self.shared.phase.store(ENDING, SeqCst);
        let start = Instant::now();
        // The tracer may have read the phase just before, so it is woken until it has seen the change.
        while self.is_tracing() && start.elapsed() < PATIENCE {
            let _ = kill(self.tracer, Signal::SIGUSR1);
            thread::sleep(Duration::from_millis(2));
        }
        let _ = kill(self.tracer, Signal::SIGKILL);
        let _ = waitpid(self.tracer, None);
    }
}

impl Shared {
    /// Maps a page of memory that the parent and its forks share. It stays mapped, because there are few and they are
    /// small.
    fn map() -> Result<&'static Self> {
        let (read_write, shared) = (
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
        );
        // SAFETY: this creates a new mapping at an address that the kernel chooses.
        let page = unsafe {
            libc::mmap(
                ptr::null_mut(),
                size_of::<Self>(),
                read_write,
                shared,
                -1,
                0,
            )
        };
        if page == libc::MAP_FAILED {
            bail!("failed to map memory: {}", Errno::last());
        }
        // SAFETY: the mapping has the requested size, is aligned to a page, zeroed and never unmapped, and all its
        // fields are atomic.
        Ok(unsafe { &*page.cast() })
    }
}

fn threads(pid: Pid) -> Result<Vec<Pid>> {
    let dir = fs::read_dir(format!("/proc/{pid}/task"))
        .with_context(|| format!("process {pid} is gone"))?;
    dir.map(|entry| {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.parse().ok());
        Ok(Pid::from_raw(number.context("a thread is a number")?))
    })
    .collect()
}

/// Runs the tracer, which ends with the traced process, or when it is told to.
fn trace(pid: Pid, threads: &[Pid], shared: &Shared) -> Result<()> {
    // SAFETY: the call only has this process end together with its parent.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    extern "C" fn nothing(_: i32) {}
    let wake = SigAction::new(
        SigHandler::Handler(nothing),
        // The call is not restarted, so that the signal ends a wait.
        SaFlags::empty(),
        SigSet::empty(),
    );
    // SAFETY: the handler does nothing.
    unsafe { sigaction(Signal::SIGUSR1, &wake)? };
    let sockets = Sockets::of(pid)?;
    let options = Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACECLONE;
    for &thread in threads {
        match ptrace::seize(thread, options) {
            Ok(()) => ptrace::interrupt(thread)?,
            // The thread has ended meanwhile, or was seized together with its parent.
            Err(Errno::ESRCH | Errno::EPERM) => {}
            Err(error) => return Err(error.into()),
        }
    }
    shared.phase.store(PASSING, SeqCst);
    while shared.phase.load(SeqCst) != ENDING {
        match waitpid(None::<Pid>, Some(WaitPidFlag::__WALL)) {
            // A thread that is killed meanwhile is gone, and its next event says so.
            Ok(event) => match go_on(event, &sockets, shared) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => return Err(error.into()),
            },
            Err(Errno::EINTR) => {}
            Err(Errno::ECHILD) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
    // The kernel resumes the tracee when its tracer ends.
    Ok(())
}

/// Resumes a stopped thread until its next stop.
fn go_on(event: WaitStatus, sockets: &Sockets, shared: &Shared) -> nix::Result<()> {
    match event {
        WaitStatus::PtraceSyscall(thread) => {
            if shared.phase.load(SeqCst) == STALLING
                && let Some(length) = sockets.question(thread)
            {
                match shared.spared.load(SeqCst) {
                    0 => return swallow(thread, length, shared),
                    spared => shared.spared.store(spared - 1, SeqCst),
                }
            }
            ptrace::syscall(thread, None)
        }
        // A stop of the whole process is kept; any other stop is that of a new thread.
        WaitStatus::PtraceEvent(thread, Signal::SIGSTOP, libc::PTRACE_EVENT_STOP) => listen(thread),
        WaitStatus::PtraceEvent(thread, ..) => ptrace::syscall(thread, None),
        WaitStatus::Stopped(thread, signal) => ptrace::syscall(thread, Some(signal)),
        _ => Ok(()),
    }
}

/// Leaves a thread stopped until the process is continued.
fn listen(thread: Pid) -> nix::Result<()> {
    let (nowhere, nothing) = (ptr::null_mut::<c_void>(), ptr::null_mut::<c_void>());
    // SAFETY: this request reads and writes no memory.
    let done = unsafe { libc::ptrace(libc::PTRACE_LISTEN, thread.as_raw(), nowhere, nothing) };
    Errno::result(done).map(drop)
}

/// Replaces a system call at its entry by one that does nothing, and has it report that `length` bytes were sent.
fn swallow(thread: Pid, length: u64, shared: &Shared) -> nix::Result<()> {
    set_number(thread, -1)?;
    ptrace::syscall(thread, None)?;
    // The replacement returns at once.
    match waitpid(thread, Some(WaitPidFlag::__WALL))? {
        WaitStatus::PtraceSyscall(_) => {
            set_result(thread, length)?;
            shared.swallowed.fetch_add(1, SeqCst);
            ptrace::syscall(thread, None)
        }
        // The process was killed.
        _ => Ok(()),
    }
}

/// Opens a descriptor for the traced process.
struct Sockets(OwnedFd);

impl Sockets {
    fn of(pid: Pid) -> Result<Self> {
        // SAFETY: the call takes a number and no flags.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
        let fd = Errno::result(fd).context("pidfd_open")?;
        // SAFETY: the kernel has just returned the descriptor.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd as i32) }))
    }

    /// Returns the length of the message that a thread is about to send to NETLINK_ROUTE, or `None` for any other
    /// call.
    fn question(&self, thread: Pid) -> Option<u64> {
        let call = Call::of(thread).ok().flatten()?;
        let [fd, second, third] = call.arguments;
        let length = match call.number {
            libc::SYS_sendto | libc::SYS_write => third,
            libc::SYS_sendmsg => message_length(thread, second)?,
            _ => return None,
        };
        self.is_route(fd).then_some(length)
    }

    fn is_route(&self, fd: u64) -> bool {
        let own = self.0.as_raw_fd();
        // SAFETY: the call takes numbers only, and returns a copy of that descriptor or an error.
        let copy = unsafe { libc::syscall(libc::SYS_pidfd_getfd, own, fd, 0) };
        if copy < 0 {
            return false;
        }
        // SAFETY: the kernel has just returned the descriptor.
        let copy = unsafe { OwnedFd::from_raw_fd(copy as i32) };
        option(&copy, libc::SO_DOMAIN) == Some(libc::AF_NETLINK)
            && option(&copy, libc::SO_PROTOCOL) == Some(libc::NETLINK_ROUTE)
    }
}

/// Reads an integer option of a socket at SOL_SOCKET.
fn option(socket: &OwnedFd, name: i32) -> Option<i32> {
    let (mut number, mut size) = (0i32, size_of::<i32>() as libc::socklen_t);
    let place = (&raw mut number).cast();
    // SAFETY: the kernel writes no more than the given size.
    let done =
        unsafe { libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, name, place, &mut size) };
    (done == 0).then_some(number)
}

/// Returns the total length of the parts of a `struct msghdr` in another process.
fn message_length(thread: Pid, address: u64) -> Option<u64> {
    // `msg_iov` and `msg_iovlen` follow two words; see recvmsg(2).
    let head: [u64; 4] = words(thread, address)?;
    let [.., parts, count] = head;
    (0..count).try_fold(0, |sum, part| {
        let [_, length]: [u64; 2] = words(thread, parts + 16 * part)?;
        Some(sum + length)
    })
}

/// Reads some words of another process's memory.
fn words<const N: usize>(thread: Pid, address: u64) -> Option<[u64; N]> {
    let mut words = [0u64; N];
    let bytes: &mut [u8] =
        // SAFETY: every bit pattern is a valid number.
        unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), 8 * N) };
    let remote = RemoteIoVec {
        base: address as usize,
        len: bytes.len(),
    };
    let read = process_vm_readv(thread, &mut [IoSliceMut::new(bytes)], &[remote]);
    (read == Ok(8 * N)).then_some(words)
}

/// Replaces the system call that begins by another; -1 stands for none.
#[cfg(target_arch = "x86_64")]
fn set_number(thread: Pid, number: i64) -> nix::Result<()> {
    let mut registers = ptrace::getregs(thread)?;
    registers.orig_rax = number as u64;
    ptrace::setregs(thread, registers)
}

/// Sets the return value of the system call that ends.
#[cfg(target_arch = "x86_64")]
fn set_result(thread: Pid, result: u64) -> nix::Result<()> {
    let mut registers = ptrace::getregs(thread)?;
    registers.rax = result;
    ptrace::setregs(thread, registers)
}

#[cfg(target_arch = "aarch64")]
fn set_number(thread: Pid, number: i64) -> nix::Result<()> {
    /// The value is from the kernel's `include/uapi/linux/elf.h`.
    const NT_ARM_SYSTEM_CALL: usize = 0x404;
    let mut number = number as i32;
    let mut part = libc::iovec {
        iov_base: (&raw mut number).cast(),
        iov_len: size_of::<i32>(),
    };
    // SAFETY: the kernel reads no more than the given size.
    let done = unsafe {
        libc::ptrace(
            libc::PTRACE_SETREGSET,
            thread.as_raw(),
            NT_ARM_SYSTEM_CALL,
            &raw mut part,
        )
    };
    Errno::result(done).map(drop)
}

#[cfg(target_arch = "aarch64")]
fn set_result(thread: Pid, result: u64) -> nix::Result<()> {
    let mut registers = ptrace::getregset::<ptrace::regset::NT_PRSTATUS>(thread)?;
    registers.regs[0] = result;
    ptrace::setregset::<ptrace::regset::NT_PRSTATUS>(thread, registers)
}

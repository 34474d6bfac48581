//! A process whose questions to the kernel's network side vanish: netlink is stalled, as by a kernel
//! that holds its lock for ever.

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

/// Longer than it takes to stop a few threads under emulation.
const PATIENCE: Duration = Duration::from_secs(30);

/// A process under ptrace, which otherwise goes on as it was. Dropped, it lets go of it.
///
/// The tracer is a process of its own, because a thread of this one would share its children: whoever
/// waits for the traced one's end would take its stops away from the tracer, and the tracer would take the end away.
pub struct NetlinkStall {
    tracer: Pid,
    shared: &'static Shared,
}

/// What this process and the tracer both see.
#[derive(Default)]
struct Shared {
    phase: AtomicU32,
    /// How many messages still arrive while it stalls.
    spared: AtomicU64,
    swallowed: AtomicU64,
}

const STARTING: u32 = 0;
const PASSING: u32 = 1;
const STALLING: u32 = 2;
const ENDING: u32 = 3;

impl NetlinkStall {
    /// Traces a process with all its threads, those that it has yet to start included.
    pub fn attach(pid: Pid) -> Result<Self> {
        let before = threads(pid)?;
        let shared = Shared::map()?;
        // SAFETY: what the tracer does takes no lock that another thread could have held.
        let tracer = match unsafe { fork() }.context("failed to start the tracer")? {
            ForkResult::Child => {
                let code = i32::from(trace(pid, &before, shared).is_err());
                // SAFETY: nothing of this process's may run here, destructors neither.
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
            // One that has ended meanwhile has no file.
            ensure!(
                line.is_err() || line.is_ok_and(|line| line.contains(&traced)),
                "thread {thread} of process {pid} is not traced"
            );
        }
        Ok(stalled)
    }

    /// From now on whatever the process sends to NETLINK_ROUTE is swallowed: the call says that it was sent,
    /// and no answer ever comes. Events still come.
    pub fn stall(&self) {
        self.stall_after(0);
    }

    /// Stalls netlink once so many more messages have arrived.
    pub fn stall_after(&self, messages: u64) {
        self.shared.spared.store(messages, SeqCst);
        self.shared.phase.store(STALLING, SeqCst);
    }

    /// From now on what it sends arrives; what was swallowed stays unanswered.
    pub fn resume(&self) {
        self.shared.phase.store(PASSING, SeqCst);
    }

    /// How many messages were swallowed by now.
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
        // Once more for as long as it takes: it may have looked at the phase just before.
        while self.is_tracing() && start.elapsed() < PATIENCE {
            let _ = kill(self.tracer, Signal::SIGUSR1);
            thread::sleep(Duration::from_millis(2));
        }
        let _ = kill(self.tracer, Signal::SIGKILL);
        let _ = waitpid(self.tracer, None);
    }
}

impl Shared {
    /// A page of memory that a fork does not copy. It stays mapped: there are few, and small.
    fn map() -> Result<&'static Self> {
        let (read_write, shared) = (
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
        );
        // SAFETY: a new mapping at a place that the kernel chooses.
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
        // SAFETY: as large as asked for, aligned to a page, zeroed, never unmapped; and all of it is atomic.
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

/// The tracer: ends with the traced process, or when it is told to.
fn trace(pid: Pid, threads: &[Pid], shared: &Shared) -> Result<()> {
    // SAFETY: only this process's own death is concerned: that of whoever started it.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    extern "C" fn nothing(_: i32) {}
    let wake = SigAction::new(
        SigHandler::Handler(nothing),
        // Not restarted: a wait has to end by it.
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
            // It has ended meanwhile, or was seized with the one that started it.
            Err(Errno::ESRCH | Errno::EPERM) => {}
            Err(error) => return Err(error.into()),
        }
    }
    shared.phase.store(PASSING, SeqCst);
    while shared.phase.load(SeqCst) != ENDING {
        match waitpid(None::<Pid>, Some(WaitPidFlag::__WALL)) {
            // A thread that is killed in the middle is gone, and says so in its next event.
            Ok(event) => match go_on(event, &sockets, shared) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => return Err(error.into()),
            },
            Err(Errno::EINTR) => {}
            Err(Errno::ECHILD) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
    // What is traced goes on by itself when its tracer ends.
    Ok(())
}

/// Lets a thread that has stopped go on to its next stop.
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
        // A stop of the whole process is kept; any other is that of a thread that begins.
        WaitStatus::PtraceEvent(thread, Signal::SIGSTOP, libc::PTRACE_EVENT_STOP) => listen(thread),
        WaitStatus::PtraceEvent(thread, ..) => ptrace::syscall(thread, None),
        WaitStatus::Stopped(thread, signal) => ptrace::syscall(thread, Some(signal)),
        _ => Ok(()),
    }
}

/// Leaves a thread stopped until somebody continues the process.
fn listen(thread: Pid) -> nix::Result<()> {
    let (nowhere, nothing) = (ptr::null_mut::<c_void>(), ptr::null_mut::<c_void>());
    // SAFETY: this request reads and writes no memory.
    let done = unsafe { libc::ptrace(libc::PTRACE_LISTEN, thread.as_raw(), nowhere, nothing) };
    Errno::result(done).map(drop)
}

/// Has a call that begins do nothing, and say that it has sent so much.
fn swallow(thread: Pid, length: u64, shared: &Shared) -> nix::Result<()> {
    set_number(thread, -1)?;
    ptrace::syscall(thread, None)?;
    // It has nothing to wait for.
    match waitpid(thread, Some(WaitPidFlag::__WALL))? {
        WaitStatus::PtraceSyscall(_) => {
            set_result(thread, length)?;
            shared.swallowed.fetch_add(1, SeqCst);
            ptrace::syscall(thread, None)
        }
        // It was killed.
        _ => Ok(()),
    }
}

/// The descriptors of the traced process.
struct Sockets(OwnedFd);

impl Sockets {
    fn of(pid: Pid) -> Result<Self> {
        // SAFETY: a number and no flags.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
        let fd = Errno::result(fd).context("pidfd_open")?;
        // SAFETY: the kernel has just given it to us.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd as i32) }))
    }

    /// How long a message is that a thread is about to send by netlink's NETLINK_ROUTE; `None` where it
    /// does something else.
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
        // SAFETY: numbers alone; a copy of that descriptor, or an error.
        let copy = unsafe { libc::syscall(libc::SYS_pidfd_getfd, own, fd, 0) };
        if copy < 0 {
            return false;
        }
        // SAFETY: the kernel has just given it to us.
        let copy = unsafe { OwnedFd::from_raw_fd(copy as i32) };
        option(&copy, libc::SO_DOMAIN) == Some(libc::AF_NETLINK)
            && option(&copy, libc::SO_PROTOCOL) == Some(libc::NETLINK_ROUTE)
    }
}

/// A number that a socket has at SOL_SOCKET.
fn option(socket: &OwnedFd, name: i32) -> Option<i32> {
    let (mut number, mut size) = (0i32, size_of::<i32>() as libc::socklen_t);
    let place = (&raw mut number).cast();
    // SAFETY: the kernel writes no more than the size that is given.
    let done =
        unsafe { libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, name, place, &mut size) };
    (done == 0).then_some(number)
}

/// The sum of the parts of a `struct msghdr` in another process.
fn message_length(thread: Pid, address: u64) -> Option<u64> {
    // `msg_iov` and `msg_iovlen` come behind two words; see recvmsg(2).
    let head: [u64; 4] = words(thread, address)?;
    let [.., parts, count] = head;
    (0..count).try_fold(0, |sum, part| {
        let [_, length]: [u64; 2] = words(thread, parts + 16 * part)?;
        Some(sum + length)
    })
}

/// Some words of another process's memory.
fn words<const N: usize>(thread: Pid, address: u64) -> Option<[u64; N]> {
    let mut words = [0u64; N];
    let bytes: &mut [u8] =
        // SAFETY: any bytes make a number.
        unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), 8 * N) };
    let remote = RemoteIoVec {
        base: address as usize,
        len: bytes.len(),
    };
    let read = process_vm_readv(thread, &mut [IoSliceMut::new(bytes)], &[remote]);
    (read == Ok(8 * N)).then_some(words)
}

/// Another system call in the place of the one that begins; -1 is none.
#[cfg(target_arch = "x86_64")]
fn set_number(thread: Pid, number: i64) -> nix::Result<()> {
    let mut registers = ptrace::getregs(thread)?;
    registers.orig_rax = number as u64;
    ptrace::setregs(thread, registers)
}

/// What the call that ends has to say.
#[cfg(target_arch = "x86_64")]
fn set_result(thread: Pid, result: u64) -> nix::Result<()> {
    let mut registers = ptrace::getregs(thread)?;
    registers.rax = result;
    ptrace::setregs(thread, registers)
}

#[cfg(target_arch = "aarch64")]
fn set_number(thread: Pid, number: i64) -> nix::Result<()> {
    /// Of the kernel's `include/uapi/linux/elf.h`.
    const NT_ARM_SYSTEM_CALL: usize = 0x404;
    let mut number = number as i32;
    let mut part = libc::iovec {
        iov_base: (&raw mut number).cast(),
        iov_len: size_of::<i32>(),
    };
    // SAFETY: the kernel reads no more than the part has.
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

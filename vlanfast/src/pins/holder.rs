//! The process that holds the lock on pins, and how it is ended without ever signalling another process.

use std::{
    fmt, fs, io,
    os::fd::{AsRawFd, OwnedFd},
};

use anyhow::Context;
use nix::sys::stat::{FileStat, major, minor};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// The process that holds the lock, according to `/proc/locks`. Its pid may be in use by another process already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// `None` if the process is in another PID namespace, for which the kernel gives no pid.
    pub pid: Option<i32>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pid {
            Some(pid) => pid.fmt(f),
            None => f.pad("in another PID namespace"),
        }
    }
}

impl Holder {
    pub(super) fn of(dir: &FileStat) -> Self {
        let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
        Self {
            pid: writer(&locks, &number(dir)),
        }
    }
}

/// A file in the form that `/proc` uses in lists of locks.
fn number(file: &FileStat) -> String {
    let (major, minor) = (major(file.st_dev), minor(file.st_dev));
    format!("{major:02x}:{minor:02x}:{}", file.st_ino)
}

/// The pid of the process that has locked a file exclusively, from `/proc/locks` (proc_locks(5)):
/// `1: FLOCK ADVISORY WRITE pid major:minor:inode start end`.
fn writer(locks: &str, file: &str) -> Option<i32> {
    let pid = locks.lines().find_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        match fields[..] {
            [_, "FLOCK", _, "WRITE", pid, of, ..] if of == file => pid.parse().ok(),
            _ => None,
        }
    });
    // The kernel shows 0 or -1 for a process of another PID namespace.
    pid.filter(|&pid| pid > 0)
}

/// A process with a pidfd. A signal reaches only this process, even if its pid is used again.
#[derive(Debug)]
pub struct Process {
    pid: i32,
    fd: OwnedFd,
}

impl Process {
    /// Opens a process; `None` if our PID namespace and that of `/proc` have no such process.
    pub fn open(pid: i32) -> anyhow::Result<Option<Self>> {
        let what = || format!("failed to open process {pid}");
        let number = Pid::from_raw(pid).with_context(what)?;
        let fd = match pidfd_open(number, PidfdFlags::empty()) {
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            fd => fd.with_context(what)?,
        };
        let said = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()));
        let is_same = said.with_context(what)?.lines().any(|line| {
            let number = line.strip_prefix("Pid:").map(str::trim);
            number == Some(pid.to_string().as_str())
        });
        Ok(is_same.then_some(Self { pid, fd }))
    }

    /// Whether this very process has a descriptor with an exclusive lock on a file.
    pub fn has_locked(&self, file: &FileStat) -> anyhow::Result<bool> {
        has_locked(self.pid, &number(file)).with_context(|| {
            format!(
                "failed to read the locks of process {}: run this as root, with all capabilities",
                self.pid
            )
        })
    }

    /// Whether the process runs a program whose name begins with `vlanfast`.
    pub fn is_vlanfast(&self) -> bool {
        let program = fs::read_link(format!("/proc/{}/exe", self.pid)).unwrap_or_default();
        let name = program.file_name().unwrap_or_default();
        name.as_encoded_bytes().starts_with(b"vlanfast")
    }

    /// Sends SIGTERM, or SIGKILL to end the process at once. It is no error if the process has ended already.
    pub fn end(&self, at_once: bool) -> anyhow::Result<()> {
        let signal = if at_once { Signal::KILL } else { Signal::TERM };
        match pidfd_send_signal(&self.fd, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => {
                Err(error).with_context(|| format!("failed to stop process {}", self.pid))
            }
        }
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {}", self.pid)
    }
}

/// Reads the `lock:` lines of `/proc/PID/fdinfo` (proc_pid_fdinfo(5)), which show the locks of each descriptor.
fn has_locked(pid: i32, file: &str) -> io::Result<bool> {
    let gone = |error: &io::Error| {
        let code = error.raw_os_error();
        error.kind() == io::ErrorKind::NotFound || code == Some(libc::ESRCH)
    };
    let entries = match fs::read_dir(format!("/proc/{pid}/fdinfo")) {
        Err(error) if gone(&error) => return Ok(false),
        entries => entries?,
    };
    for entry in entries {
        let said = entry.and_then(|entry| fs::read_to_string(entry.path()));
        match said {
            Ok(said) if shows_lock(&said, file) => return Ok(true),
            // Any error but that the descriptor was closed or the process has ended.
            Err(error) if !gone(&error) => return Err(error),
            _ => {}
        }
    }
    Ok(false)
}

fn shows_lock(said: &str, file: &str) -> bool {
    said.lines()
        .filter_map(|line| line.strip_prefix("lock:"))
        .any(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            matches!(fields[..], [_, "FLOCK", _, "WRITE", _, of, ..] if of == file)
        })
}

/// All processes with an exclusive lock on a file, in words. Several may share one by an inherited descriptor.
pub fn holders(file: &FileStat) -> String {
    let file = number(file);
    let mut found = vec![];
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        if has_locked(pid, &file).unwrap_or(false) {
            let name = fs::read(entry.path().join("comm")).unwrap_or_default();
            let name = crate::state::name::Name::new(name.trim_ascii_end());
            found.push(format!("process {pid} ({name})"));
        }
    }
    match found.is_empty() {
        true => "a process that /proc does not show".into(),
        false => found.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_has_an_exclusive_lock_on_this_very_file() {
        let locks = "\
1: POSIX  ADVISORY  WRITE 11 00:20:77 0 EOF
2: FLOCK  ADVISORY  WRITE 12 08:01:77 0 EOF
3: FLOCK  ADVISORY  READ  13 00:20:77 0 EOF
4: FLOCK  ADVISORY  WRITE 14 00:20:77 0 EOF
4: -> FLOCK  ADVISORY  WRITE 15 00:20:77 0 EOF
5: FLOCK  ADVISORY  WRITE 0 00:20:78 0 EOF
";
        assert_eq!(writer(locks, "00:20:77"), Some(14));
        assert_eq!(writer(locks, "00:20:78"), None);
        assert_eq!(writer(locks, "00:20:7"), None);
    }

    #[test]
    fn a_descriptor_shows_its_lock() {
        let said = "pos:\t0\nflags:\t02300000\nmnt_id:\t33\nino:\t77\n\
                    lock:\t1: FLOCK  ADVISORY  WRITE 12 00:20:77 0 EOF\n";
        assert!(shows_lock(said, "00:20:77"));
        assert!(!shows_lock(said, "00:20:7"));
        assert!(!shows_lock(&said.replace("WRITE", "READ"), "00:20:77"));
    }

    #[test]
    fn a_process_that_has_ended_can_not_be_opened() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let process = Process::open(child.id() as i32).unwrap().unwrap();
        assert!(!process.is_vlanfast());
        process.end(true).unwrap();
        assert!(!child.wait().unwrap().success());
        process.end(false).unwrap();
        let file = nix::sys::stat::stat("/").unwrap();
        assert!(!process.has_locked(&file).unwrap());
        assert!(Process::open(child.id() as i32).unwrap().is_none());
    }
}

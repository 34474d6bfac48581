//! Whose the pins are at the moment, and how it is ended without ever meeting another.

use std::{
    fmt, fs, io,
    os::fd::{AsRawFd, OwnedFd},
};

use anyhow::Context;
use nix::sys::stat::{FileStat, major, minor};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// The process that holds the lock, as `/proc/locks` has it. Its number may be another's by now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// `None` where the kernel doesn't say: it is in another PID namespace.
    pub pid: Option<i32>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pid {
            Some(pid) => pid.fmt(f),
            None => f.pad("of another namespace"),
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

/// A file as `/proc` has it in lists of locks.
fn number(file: &FileStat) -> String {
    let (major, minor) = (major(file.st_dev), minor(file.st_dev));
    format!("{major:02x}:{minor:02x}:{}", file.st_ino)
}

/// Who has locked a file exclusively, by `/proc/locks` (proc_locks(5)):
/// `1: FLOCK ADVISORY WRITE pid major:minor:inode start end`.
fn writer(locks: &str, file: &str) -> Option<i32> {
    let pid = locks.lines().find_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        match fields[..] {
            [_, "FLOCK", _, "WRITE", pid, of, ..] if of == file => pid.parse().ok(),
            _ => None,
        }
    });
    // 0, or -1, for one of another PID namespace.
    pid.filter(|&pid| pid > 0)
}

/// A process that is known by a descriptor: what is sent to it reaches no other, even if its number is used
/// again.
#[derive(Debug)]
pub struct Process {
    pid: i32,
    fd: OwnedFd,
}

impl Process {
    /// `None` if there is none of that number, in our PID namespace as in that of `/proc`.
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

    /// Whether it is this very process that has locked a file exclusively, by the descriptor that it has open.
    pub fn has_locked(&self, file: &FileStat) -> anyhow::Result<bool> {
        has_locked(self.pid, &number(file)).with_context(|| {
            format!(
                "failed to look at process {}: run this as root, with all capabilities",
                self.pid
            )
        })
    }

    pub fn is_vlanfast(&self) -> bool {
        let program = fs::read_link(format!("/proc/{}/exe", self.pid)).unwrap_or_default();
        let name = program.file_name().unwrap_or_default();
        name.as_encoded_bytes().starts_with(b"vlanfast")
    }

    /// Ends it in order, or else at once. That it has ended already is fine.
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

/// By `lock:` lines of `/proc/PID/fdinfo` (proc_pid_fdinfo(5)), which show a lock to whoever has its descriptor.
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
            // Closed since, or ended.
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

/// Everybody who has a file locked exclusively, by a descriptor that may be inherited, in words.
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
        true => "a process that can't be seen from here".into(),
        false => found.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_holds_this_very_file_exclusively_is_its_holder() {
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
    fn a_process_that_has_ended_is_none() {
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

//! A system call of a traced process.

use std::ffi::c_void;

use anyhow::{Result, ensure};
use nix::{
    sys::ptrace::{self},
    unistd::Pid,
};

/// A system call at its entry.
pub(crate) struct Call {
    pub(crate) number: i64,
    pub(crate) arguments: [u64; 3],
}

impl Call {
    /// Reads the system call of a stopped thread; `None` at the exit of a call.
    pub(crate) fn of(pid: Pid) -> Result<Option<Self>> {
        // `struct ptrace_syscall_info` of ptrace(2) has three words, then the number and the arguments.
        let mut words = [0u64; 11];
        // SAFETY: the kernel writes no more than the given size.
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

    /// Returns a name for the call if others can see its effect.
    pub(crate) fn changes(&self, pid: Pid) -> Result<Option<&'static str>> {
        let [first, second, third] = self.arguments;
        Ok(match self.number {
            // The numbers are those of `enum bpf_cmd` and of rtnetlink's message types, from the kernel's
            // `include/uapi/linux`.
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
                // `ifr_data` of `struct ifreq` follows the name, and points to the number of the command.
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

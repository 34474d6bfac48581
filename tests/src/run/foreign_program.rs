//! Minimal BPF programs that stand for third-party ones at a hook that vlanfast uses too.

use std::{
    fs, io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

use crate::net::namespace::{Netns, in_netns, unique};

/// `enum bpf_prog_type`, `enum bpf_cmd`, `enum bpf_attach_type` and flags of the kernel's
/// `include/uapi/linux/bpf.h`.
const SCHED_CLS: u32 = 3;
const XDP: u32 = 6;
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_LINK_DETACH: libc::c_long = 34;
pub const BPF_F_BEFORE: u32 = 1 << 3;
pub const BPF_F_AFTER: u32 = 1 << 4;

/// The result of a TC program with which the frame goes on and no further program sees it.
const TC_ACT_OK: i32 = 0;
const XDP_PASS: i32 = 2;

/// A loaded program, and a link if it is attached; dropping this ends both.
#[derive(Debug)]
pub struct ForeignProgram {
    program: OwnedFd,
    link: Option<OwnedFd>,
}

impl ForeignProgram {
    /// Loads a TC program that passes everything, so that no later program runs.
    pub fn tc(name: &str) -> Result<Self> {
        Self::load(SCHED_CLS, name, TC_ACT_OK)
    }

    /// Loads an XDP program that passes everything.
    pub fn xdp(name: &str) -> Result<Self> {
        Self::load(XDP, name, XDP_PASS)
    }

    fn load(kind: u32, name: &str, result: i32) -> Result<Self> {
        // The program is: r0 = result; exit.
        let code = [(result as u64) << 32 | 0xb7, 0x95];
        let program = load_kind(kind, &code, name)?;
        Ok(Self {
            program,
            link: None,
        })
    }

    /// Attaches the program to a device of a namespace with tcx, before or after all programs that are there.
    pub fn attach_tcx(
        &mut self,
        netns: &Netns,
        device: &str,
        ingress: bool,
        flags: u32,
    ) -> Result<()> {
        let attach_type: u32 = if ingress { 46 } else { 47 };
        self.attach(netns, device, attach_type, flags)
    }

    /// Attaches the program to a device of a namespace with native XDP.
    pub fn attach_xdp(&mut self, netns: &Netns, device: &str) -> Result<()> {
        self.attach(netns, device, 37, 1 << 2)
    }

    fn attach(&mut self, netns: &Netns, device: &str, attach_type: u32, flags: u32) -> Result<()> {
        let program = self.program.as_raw_fd() as u32;
        let device = device.to_owned();
        // The kernel looks an index up in the caller's namespace.
        let link = in_netns(&netns.path(), move || {
            let ifindex = nix::net::if_::if_nametoindex(device.as_str())?;
            let link = open(BPF_LINK_CREATE, &mut [program, ifindex, attach_type, flags]);
            link.context("failed to attach a program")
        })?;
        self.link = Some(link);
        Ok(())
    }

    /// Pins the program where `tc filter add … bpf da object-pinned` finds it; the file is removed with the result.
    pub fn pinned(&self) -> Result<Pin> {
        let path = PathBuf::from("/sys/fs/bpf").join(unique());
        let name = std::ffi::CString::new(path.as_os_str().as_encoded_bytes())?;
        let fd = self.program.as_raw_fd() as u64;
        call(BPF_OBJ_PIN, &mut [name.as_ptr() as u64, fd])?;
        Ok(Pin(path))
    }
}

/// A pin that is removed when it is dropped.
#[derive(Debug)]
pub struct Pin(PathBuf);

impl Pin {
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Detaches a pinned link from its hook, as `bpftool link detach` does.
pub fn detach_link(pin: &Path) -> Result<()> {
    let name = std::ffi::CString::new(pin.as_os_str().as_encoded_bytes())?;
    let link = open(BPF_OBJ_GET, &mut [name.as_ptr() as u64, 0])
        .with_context(|| format!("failed to open {}", pin.display()))?;
    call(BPF_LINK_DETACH, &mut [link.as_raw_fd() as u64, 0])?;
    Ok(())
}

/// Loads a TC program.
pub(crate) fn load(code: &[u64], name: &str) -> Result<OwnedFd> {
    load_kind(SCHED_CLS, code, name)
}

fn load_kind(kind: u32, code: &[u64], name: &str) -> Result<OwnedFd> {
    let license = c"GPL";
    let mut attributes = [0u8; 64];
    let mut put = |at: usize, bytes: &[u8]| attributes[at..][..bytes.len()].copy_from_slice(bytes);
    put(0, &kind.to_ne_bytes());
    put(4, &(code.len() as u32).to_ne_bytes());
    put(8, &(code.as_ptr() as u64).to_ne_bytes());
    put(16, &(license.as_ptr() as u64).to_ne_bytes());
    ensure!(name.len() < 16, "{name} is too long for a program");
    put(48, name.as_bytes());
    open(BPF_PROG_LOAD, &mut attributes).context("failed to load a program")
}

pub(crate) fn open<T>(command: libc::c_long, attributes: &mut T) -> io::Result<OwnedFd> {
    let fd = call(command, attributes)?;
    // SAFETY: the call returned the descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub(crate) fn call<T>(command: libc::c_long, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: the kernel reads and writes no more than the given size.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size_of::<T>()) };
    match result {
        0.. => Ok(result as i32),
        _ => Err(io::Error::last_os_error()),
    }
}

//! Network namespaces of a test, and commands that run in them.

use std::{
    fs::File,
    net::UdpSocket,
    os::fd::AsRawFd,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
};

/// Returns a name that no other test of this machine uses: `vf`, the process id, and a number. It has at most 12
/// characters.
pub fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!(
        "vf{}x{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

/// A network namespace, which is removed with its contents when this is dropped.
#[derive(Debug)]
pub struct Netns {
    pub name: String,
}

impl Netns {
    pub fn new() -> Result<Self> {
        let name = unique();
        run(&format!("ip netns add {name}"))?;
        let netns = Self { name };
        // Without addresses of its own, the namespace sends nothing but the test's traffic.
        netns.run(
            "for conf in all default; do echo 1 >/proc/sys/net/ipv6/conf/$conf/disable_ipv6; done; \
             ip link set lo up",
        )?;
        Ok(netns)
    }

    /// Returns the namespace in which the test began, under a unique name.
    pub fn here() -> Result<Self> {
        Self::of(&std::process::id().to_string())
    }

    /// Returns the namespace of a process, under a unique name.
    pub fn of(pid: &str) -> Result<Self> {
        let name = unique();
        run(&format!("ip netns attach {name} {pid}"))?;
        Ok(Self { name })
    }

    /// Gives this namespace one more name.
    pub fn again(&self) -> Result<Self> {
        let name = unique();
        self.run(&format!("ip netns attach {name} $$"))?;
        Ok(Self { name })
    }

    /// Returns the MAC address of a device.
    pub fn mac(&self, device: &str) -> Result<[u8; 6]> {
        let line = format!("ip -br link show {device} | grep -o '[0-9a-f:]\\{{17\\}}'");
        let text = self.run(&line)?;
        let bytes = text
            .trim()
            .split(':')
            .map(|byte| u8::from_str_radix(byte, 16));
        let bytes: Vec<_> = bytes.collect::<Result<_, _>>()?;
        bytes.try_into().ok().context("a MAC address has six bytes")
    }

    /// Joins groups on a device as `ip maddr add` does, without a process for each.
    pub fn join(&self, device: &str, groups: Vec<[u8; 6]>) -> Result<()> {
        let device = device.to_owned();
        in_netns(&self.path(), move || {
            let socket = UdpSocket::bind("127.0.0.1:0")?;
            for group in groups {
                // SAFETY: all zeroes is a valid request.
                let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
                let name = request.ifr_name.iter_mut().zip(device.bytes());
                name.for_each(|(to, byte)| *to = byte as libc::c_char);
                // SAFETY: the request reads this field of the union.
                let address = unsafe { &mut request.ifr_ifru.ifru_hwaddr.sa_data };
                let bytes = address.iter_mut().zip(group);
                bytes.for_each(|(to, byte)| *to = byte as libc::c_char);
                // SAFETY: the request is laid out as in netdevice(7).
                let result =
                    unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCADDMULTI as _, &request) };
                let error = std::io::Error::last_os_error();
                ensure!(result == 0, "{device} does not join {group:x?}: {error}");
            }
            Ok(())
        })
    }

    pub fn path(&self) -> String {
        format!("/run/netns/{}", self.name)
    }

    /// Returns a command that runs in the namespace.
    pub fn command(&self, program: &str) -> Command {
        enter(&self.name, program)
    }

    /// Runs a shell command in the namespace and returns its output.
    pub fn run(&self, line: &str) -> Result<String> {
        let mut command = self.command("sh");
        command.args(["-c", line]);
        output(&mut command, line)
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        // A failure shows in the next test's residue.
        let _ = run(&format!("ip netns del {}", self.name));
    }
}

/// Returns a command that runs in a namespace. `ip netns exec` is not used, because it remounts /sys and hides bpffs.
pub fn enter(netns: &str, program: &str) -> Command {
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--net=/run/netns/{netns}"))
        .arg(program);
    command
}

/// Many network namespaces, which are created and removed without a process for each.
pub struct ManyNamespaces {
    prefix: String,
    size: usize,
}

impl ManyNamespaces {
    pub fn new(size: usize) -> Result<Self> {
        let namespaces = Self {
            prefix: unique(),
            size,
        };
        // iproute2 creates the first one, and prepares the directory for the others.
        drop(Netns::new()?);
        for number in 0..size {
            let path = namespaces.path(number);
            // The file of a thread's namespace is bind-mounted, as `ip netns add` does.
            thread::spawn(move || -> Result<()> {
                unshare(CloneFlags::CLONE_NEWNET)?;
                File::create(&path)?;
                let (own, none) = (Some("/proc/thread-self/ns/net"), None::<&str>);
                Ok(mount(own, path.as_str(), none, MsFlags::MS_BIND, none)?)
            })
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            .context("failed to make a namespace")?;
        }
        Ok(namespaces)
    }

    /// Returns a name that `ip` knows.
    pub fn name(&self, number: usize) -> String {
        format!("{}n{number}", self.prefix)
    }

    fn path(&self, number: usize) -> String {
        format!("/run/netns/{}", self.name(number))
    }
}

impl Drop for ManyNamespaces {
    fn drop(&mut self) {
        for number in 0..self.size {
            let path = self.path(number);
            // A failure shows as endpoints that do not go away.
            let _ = umount2(path.as_str(), MntFlags::MNT_DETACH);
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Returns the name of the NIC with a MAC, in the namespace in which the test began.
///
/// It waits for the NIC, because the kernel dismantles a dead namespace and returns its NICs with a delay.
pub fn nic(mac: &str) -> Result<String> {
    let start = Instant::now();
    loop {
        let found = run(&format!("grep -sl {mac} /sys/class/net/*/address"));
        if let Some(name) = found.as_ref().ok().and_then(|path| path.split('/').nth(4)) {
            return Ok(name.to_owned());
        }
        ensure!(
            start.elapsed() < Duration::from_secs(30),
            "no NIC has the MAC {mac}"
        );
        thread::sleep(Duration::from_millis(50));
    }
}

/// Runs a shell command and returns its output.
pub fn run(line: &str) -> Result<String> {
    let mut command = Command::new("sh");
    command.args(["-c", line]);
    output(&mut command, line)
}

fn output(command: &mut Command, line: &str) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("failed to start `{line}`"))?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        bail!("`{line}` failed: {}", error.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs `work` on a thread of its own in a namespace; the caller's namespace does not change.
pub fn in_netns<T: Send + 'static>(
    path: &str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let path = path.to_owned();
    thread::spawn(move || {
        let file = File::open(&path).with_context(|| format!("failed to open {path}"))?;
        setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("failed to enter {path}"))?;
        work()
    })
    .join()
    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

//! Namespaces and devices that belong to one test.

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
    sched::{CloneFlags, unshare},
};

use crate::capture::in_netns;

/// A word that no other test of this machine uses: `vf`, our process, a number. At most 12 characters.
pub fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!(
        "vf{}x{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

/// A network namespace; gone with what is in it when it is dropped.
#[derive(Debug)]
pub struct Netns {
    pub name: String,
}

impl Netns {
    pub fn new() -> Result<Self> {
        let name = unique();
        run(&format!("ip netns add {name}"))?;
        let netns = Self { name };
        // No address of its own means no traffic but the test's.
        netns.run(
            "for conf in all default; do echo 1 >/proc/sys/net/ipv6/conf/$conf/disable_ipv6; done; \
             ip link set lo up",
        )?;
        Ok(netns)
    }

    /// The namespace where the test began, under a name of its own.
    pub fn here() -> Result<Self> {
        Self::of(&std::process::id().to_string())
    }

    /// The namespace of a process, under a name of its own.
    pub fn of(pid: &str) -> Result<Self> {
        let name = unique();
        run(&format!("ip netns attach {name} {pid}"))?;
        Ok(Self { name })
    }

    /// The same namespace under a further name.
    pub fn again(&self) -> Result<Self> {
        let name = unique();
        self.run(&format!("ip netns attach {name} $$"))?;
        Ok(Self { name })
    }

    /// The MAC address of a device.
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

    /// Has a device join groups, as `ip maddr add` does, without a process for each.
    pub fn join(&self, device: &str, groups: Vec<[u8; 6]>) -> Result<()> {
        let device = device.to_owned();
        in_netns(&self.path(), move || {
            let socket = UdpSocket::bind("127.0.0.1:0")?;
            for group in groups {
                // SAFETY: all zeroes is a valid request.
                let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
                let name = request.ifr_name.iter_mut().zip(device.bytes());
                name.for_each(|(to, byte)| *to = byte as libc::c_char);
                // SAFETY: of the union, this is what the request takes.
                let address = unsafe { &mut request.ifr_ifru.ifru_hwaddr.sa_data };
                let bytes = address.iter_mut().zip(group);
                bytes.for_each(|(to, byte)| *to = byte as libc::c_char);
                // SAFETY: a request as netdevice(7) has it.
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

    /// A command in the namespace.
    pub fn command(&self, program: &str) -> Command {
        enter(&self.name, program)
    }

    /// Runs a shell's line in the namespace and gives its output.
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

/// A trunk in one namespace and the other end of its wire in another.
#[derive(Debug)]
pub struct Wire {
    pub host: Netns,
    pub router: Netns,
    /// The trunk, in `host`: a name of its own, because pins go by it.
    pub trunk: String,
}

/// The router's end of the wire.
pub const WIRE: &str = "wire";

impl Wire {
    /// A veth pair, up, without addresses. No offloads that would make one frame of several.
    pub fn veth() -> Result<Self> {
        Self::veth_in(Netns::new()?, 1)
    }

    /// The same with a number of queues each way.
    pub fn veth_with_queues(queues: u32) -> Result<Self> {
        Self::veth_in(Netns::new()?, queues)
    }

    /// The same with the trunk in the namespace where the test began: Docker works there.
    pub fn here() -> Result<Self> {
        Self::veth_in(Netns::here()?, 1)
    }

    fn veth_in(host: Netns, queues: u32) -> Result<Self> {
        let (router, trunk) = (Netns::new()?, unique());
        let (h, r) = (&host.name, &router.name);
        let queues = format!("numrxqueues {queues} numtxqueues {queues}");
        run(&format!(
            "ip link add {trunk} netns {h} address 02:00:00:00:00:0a {queues} type veth \
             peer name {WIRE} netns {r} address 02:00:00:00:00:0b {queues}"
        ))?;
        let wire = Self {
            host,
            router,
            trunk,
        };
        wire.host.run(&format!("ip link set {} up", wire.trunk))?;
        wire.router.run(&format!("ip link set {WIRE} up"))?;
        Ok(wire)
    }

    /// The lab's two virtio NICs, whose driver has native XDP; they go back when this is dropped.
    pub fn virtio() -> Result<Self> {
        let (host, router, trunk) = (Netns::new()?, Netns::new()?, unique());
        for (mac, name, netns) in [
            ("52:54:00:00:00:0a", trunk.as_str(), &host),
            ("52:54:00:00:00:0b", WIRE, &router),
        ] {
            let nic = nic(mac)?;
            run(&format!(
                "ip link set {nic} down && ip link set {nic} netns {}",
                netns.name
            ))?;
            netns.run(&format!("ip link set {nic} name {name}"))?;
            // QEMU filters by address and VLAN otherwise; a NIC on a wire of ours need not.
            netns.run(&format!("ip link set {name} promisc on up"))?;
        }
        Ok(Self {
            host,
            router,
            trunk,
        })
    }

    /// 802.1Q devices for a VLAN on both ends: `<trunk>.<vid>` and `wire.<vid>`, up.
    pub fn vlan(&self, vid: u16) -> Result<()> {
        for (netns, device) in [(&self.host, self.trunk.as_str()), (&self.router, WIRE)] {
            netns.run(&format!(
                "ip link add link {device} name {device}.{vid} type vlan id {vid} && \
                 ip link set {device}.{vid} up"
            ))?;
        }
        Ok(())
    }

    /// A container on a VLAN as Docker makes it: a macvlan in bridge mode in a namespace of its own.
    pub fn container(&self, vid: u16, address: &str) -> Result<Netns> {
        let container = Netns::new()?;
        let (name, trunk) = (&container.name, &self.trunk);
        self.host.run(&format!(
            "ip link add link {trunk}.{vid} name mv{vid} type macvlan mode bridge && \
             ip link set mv{vid} netns {name}"
        ))?;
        container.run(&format!(
            "ip link set mv{vid} name eth0 && ip addr add {address}/24 dev eth0 && ip link set eth0 up"
        ))?;
        Ok(container)
    }

    /// A counter of a device, in frames: independent of vlanfast and of packet sockets.
    pub fn statistic(netns: &Netns, device: &str, name: &str) -> Result<u64> {
        let text = netns.run(&format!("ip -s -j link show {device}"))?;
        let json: serde_json::Value = serde_json::from_str(&text)?;
        let (side, field) = name.split_once('_').context("a name like rx_packets")?;
        json[0]["stats64"][side][field]
            .as_u64()
            .with_context(|| format!("{device} has no {name}"))
    }

    /// Keeps VLAN tags in the bytes on both ends, as XDP on a veth needs it.
    pub fn keep_tags(&self) -> Result<()> {
        self.host
            .run(&format!("ethtool -K {} rxvlan off", self.trunk))?;
        self.router.run(&format!("ethtool -K {WIRE} txvlan off"))?;
        Ok(())
    }

    /// The same wire, with that done.
    pub fn keeping_tags(self) -> Result<Self> {
        self.keep_tags()?;
        Ok(self)
    }
}

/// A command in a namespace. Not by `ip netns exec`, which remounts /sys and hides bpffs.
pub fn enter(netns: &str, program: &str) -> Command {
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--net=/run/netns/{netns}"))
        .arg(program);
    command
}

/// Many network namespaces, made and removed without a process for each.
pub struct Crowd {
    prefix: String,
    size: usize,
}

impl Crowd {
    pub fn new(size: usize) -> Result<Self> {
        let crowd = Self {
            prefix: unique(),
            size,
        };
        // The first is iproute2's, which makes the directory ready for the others.
        drop(Netns::new()?);
        for number in 0..size {
            let path = crowd.path(number);
            // As `ip netns add` does it: the namespace of a thread, kept by a mount of its file.
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
        Ok(crowd)
    }

    /// A name that `ip` knows.
    pub fn name(&self, number: usize) -> String {
        format!("{}n{number}", self.prefix)
    }

    fn path(&self, number: usize) -> String {
        format!("/run/netns/{}", self.name(number))
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        for number in 0..self.size {
            let path = self.path(number);
            // Failures show as endpoints that stay.
            let _ = umount2(path.as_str(), MntFlags::MNT_DETACH);
            let _ = std::fs::remove_file(path);
        }
    }
}

/// The name of the NIC with a MAC, in the namespace where the test began.
///
/// Waits for it: the kernel takes a dead namespace apart, and gives its NICs back, in its own time.
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

/// Runs a shell's line and gives its output.
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

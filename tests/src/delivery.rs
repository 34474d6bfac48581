//! A macvlan and a macvtap in the trunk's own namespace, as virtual machines have them, with
//! `--deliver redirect` and without.

use std::{
    fs::{self, OpenOptions},
    io::{ErrorKind, Read},
    os::unix::fs::OpenOptionsExt,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    access::addressed,
    capture::{Packets, in_netns},
    packet::frame,
    program::{Attached, vlanfast},
    scenario::transfer,
    topology::{Netns, WIRE, Wire, unique},
};

const ROUTER: &str = "10.9.1.1";
const ROUTER6: &str = "fd00:91::1";
const HERE: &str = "10.9.1.2";
const HERE6: &str = "fd00:91::2";
const ELSEWHERE: &str = "10.9.1.3";
const TAP: [u8; 6] = [0x02, 0, 0, 0, 0x91, 4];
/// Frames for the macvtap.
const TAPPED: u8 = 10;

/// On one VLAN: the router, a macvlan and a macvtap next to the trunk, a container in a namespace of its own.
pub struct Neighbours<'a> {
    wire: &'a Wire,
    vid: u16,
    /// The router's device on the VLAN.
    far: String,
    _container: Netns,
}

impl<'a> Neighbours<'a> {
    /// On the trunk itself for VID 0; else on devices that are there.
    pub fn new(wire: &'a Wire, vid: u16) -> Result<Self> {
        let on = |device: &str| match vid {
            0 => device.to_owned(),
            vid => format!("{device}.{vid}"),
        };
        let (near, far) = (on(&wire.trunk), on(WIRE));
        let container = Netns::new()?;
        // The trunk would answer for the macvlan's address, and draw its frames.
        wire.host.run(&format!(
            "echo 1 >/proc/sys/net/ipv4/conf/all/arp_ignore && \
             ip link add link {near} name vm0 type macvlan mode bridge && {} && \
             ip link add link {near} name tap0 address {} type macvtap mode bridge && \
             ip link set tap0 up && \
             ip link add link {near} name mv0 type macvlan mode bridge && \
             ip link set mv0 netns {}",
            addressed("vm0", HERE, HERE6),
            TAP.map(|byte| format!("{byte:02x}")).join(":"),
            container.name,
        ))?;
        container.run(&addressed("mv0", ELSEWHERE, "fd00:91::3"))?;
        wire.router.run(&addressed(&far, ROUTER, ROUTER6))?;
        Ok(Self {
            wire,
            vid,
            far,
            _container: container,
        })
    }

    pub fn attach(&self, arguments: &[&str]) -> Result<Attached> {
        Attached::start(&self.wire.host, &self.wire.trunk, arguments)
    }

    /// Both protocols, both ways: nothing is lost, and unicast from the wire is redirected, or not.
    pub fn talk(&self, attached: &Attached, redirected: bool) -> Result<()> {
        let received = || Wire::statistic(&self.wire.host, "vm0", "rx_packets");
        let (before, delivered) = (received()?, self.delivered(attached)?);
        for address in [HERE, HERE6] {
            self.ping(address, 200)?;
        }
        for address in [HERE, HERE6] {
            transfer(&self.wire.router, &self.wire.host, address)?;
        }
        for address in [ROUTER, ROUTER6] {
            transfer(&self.wire.host, &self.wire.router, address)?;
        }
        let received = received()? - before;
        let delivered = self.delivered(attached)? - delivered;
        let row = attached.row(self.vid)?;
        match redirected {
            // What macvlan itself did not receive, it does not count.
            true => ensure!(
                delivered > 5000 && received < 50,
                "{delivered} delivered, {received} by macvlan: {row:#}"
            ),
            false => ensure!(
                delivered == 0 && received > 500,
                "{delivered} delivered, {received} by macvlan: {row:#}"
            ),
        }
        let unicast = row["rx"]["packets"]["unicast"].as_u64();
        ensure!(unicast >= Some(delivered), "{row:#}");
        Ok(())
    }

    /// A container takes its frames by the kernel's own path, and `endpoints` says why.
    pub fn elsewhere_nothing_changes(&self, attached: &Attached) -> Result<()> {
        let before = self.delivered(attached)?;
        self.ping(ELSEWHERE, 200)?;
        let delivered = self.delivered(attached)? - before;
        // The router may ask the others whether they are still there.
        ensure!(delivered < 20, "{delivered} delivered");
        let why = "in another namespace";
        self.is_shown("mv0", "kernel", Some(why))?;
        self.is_shown("vm0", "redirect", None)?;
        self.is_shown("tap0", "redirect", None)?;
        let text = vlanfast(&self.wire.host, &["endpoints", &self.wire.trunk])?.stdout;
        ensure!(text.contains(&format!("kernel: {why}")), "{text}");
        Ok(())
    }

    /// What `endpoints` says of a device.
    pub fn is_shown(&self, device: &str, deliver: &str, detour: Option<&str>) -> Result<()> {
        let trunk = &self.wire.trunk;
        let ended = vlanfast(&self.wire.host, &["endpoints", trunk, "--json"])?;
        let rows: serde_json::Value = serde_json::from_str(&ended.stdout)?;
        let mut rows = rows.as_array().context("an array")?.iter();
        let row = rows
            .find(|row| row["device"] == device)
            .with_context(|| format!("no {device}: {}", ended.stdout))?;
        let shown = (row["deliver"].as_str(), row["detour"].as_str());
        ensure!(shown == (Some(deliver), detour), "{row:#}");
        Ok(())
    }

    /// Frames for the macvtap are read from its queue, without a tag.
    pub fn reaches_the_tap(&self, attached: &Attached) -> Result<()> {
        let far = Packets::open(&self.wire.router.path(), &self.far, false)?;
        let mut queue = self.queue()?;
        // To open it has changed what is mounted, and while that is looked at the kernel delivers.
        thread::sleep(Duration::from_millis(500));
        let before = self.delivered(attached)?;
        for number in 0..TAPPED {
            // Local experimental EtherType (IEEE 802-2014 clause 9.2.4).
            let sent = frame(TAP, &[0x88, 0xb5, 0x91, number], 60);
            far.send(&sent)?;
            await_frame(&mut queue, &sent)?;
            thread::sleep(Duration::from_millis(50));
        }
        let redirected = self.delivered(attached)? - before;
        ensure!(
            redirected >= u64::from(TAPPED),
            "{redirected} of {TAPPED} were redirected"
        );
        Ok(())
    }

    /// Packets that were redirected.
    pub fn delivered(&self, attached: &Attached) -> Result<u64> {
        let row = attached.row(self.vid)?;
        let number = &row["verdicts"]["rx"]["deliver"];
        number
            .as_u64()
            .with_context(|| format!("no number: {row:#}"))
    }

    pub fn ping(&self, address: &str, count: u32) -> Result<()> {
        // Under emulation the last answer may come late.
        let line = format!("ping -q -n -c {count} -i 0.005 -W 5 {address}");
        let said = self.wire.router.run(&line)?;
        ensure!(said.contains(" 0% packet loss"), "{said}");
        ensure!(!said.contains("duplicates"), "{said}");
        Ok(())
    }

    /// Opens the macvtap as a virtual machine does: a character device that nobody may have made yet.
    fn queue(&self) -> Result<fs::File> {
        let path = format!("/tmp/{}", unique());
        self.wire.host.run(&format!(
            "mkdir {path}.sys && mount -t sysfs sysfs {path}.sys && \
             numbers=$(cat {path}.sys/class/net/tap0/macvtap/tap*/dev); \
             umount {path}.sys; rmdir {path}.sys; \
             mknod {path} c ${{numbers%:*}} ${{numbers#*:}}"
        ))?;
        let opened = path.clone();
        let file = in_netns(&self.wire.host.path(), move || {
            let mut options = OpenOptions::new();
            options
                .read(true)
                .write(true)
                .custom_flags(libc::O_NONBLOCK);
            options.open(&opened).context("failed to open the macvtap")
        });
        fs::remove_file(&path)?;
        file
    }
}

/// Reads a macvtap's queue, which does not block, until the frame comes.
fn await_frame(queue: &mut fs::File, frame: &[u8]) -> Result<()> {
    let start = Instant::now();
    let mut buffer = [0; 2048];
    loop {
        match queue.read(&mut buffer) {
            // Behind a `struct virtio_net_hdr`.
            Ok(length) if buffer[10..length] == *frame => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                thread::sleep(Duration::from_millis(10));
            }
            Err(error) => bail!("failed to read from the macvtap: {error}"),
        }
        let waited = start.elapsed();
        ensure!(waited < Duration::from_secs(5), "it never came");
    }
}

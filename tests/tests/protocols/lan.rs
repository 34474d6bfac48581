//! VLAN 10 with a router, the host's own device and three containers, and somebody on VLAN 20.

use std::{
    collections::BTreeMap,
    fs,
    net::Ipv6Addr,
    panic::resume_unwind,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::ifaddrs::getifaddrs;
use serde_json::Value;
use vlanfast_tests::{
    net::{
        namespace::{Netns, in_netns},
        topology::{WIRE, Wire},
    },
    run::program::{Attached, Ended, end},
};

/// Who is on the LAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Station {
    /// At the other end of the wire.
    Router,
    /// The Docker host itself, by its device on VLAN 10.
    Host,
    A,
    B,
    C,
    /// A container on VLAN 20: what it has is free on VLAN 10.
    Elsewhere,
}

use Station::{A, B, C, Elsewhere, Host, Router};

pub const STATIONS: [Station; 5] = [Router, Host, A, B, C];

impl Station {
    fn number(self) -> u8 {
        match self {
            Router => 1,
            Host => 2,
            A => 11,
            B => 12,
            C => 13,
            Elsewhere => 99,
        }
    }

    pub fn ipv4(self) -> String {
        format!("192.0.2.{}", self.number())
    }

    pub fn ipv6(self) -> String {
        format!("2001:db8::{}", self.number())
    }

    fn vid(self) -> u16 {
        if self == Elsewhere { 20 } else { 10 }
    }
}

pub struct Lan {
    attached: Option<Attached>,
    since: Instant,
    // They go before the host, whose devices theirs are on.
    containers: BTreeMap<Station, Netns>,
    pub wire: Wire,
}

/// What a station knows of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// It has the MAC of that one. Reachable, stale or about to be asked again: which of them depends
    /// on the moment.
    At(Station),
    /// A MAC that nobody has, or no longer.
    Gone,
    Failed,
}

impl Lan {
    pub fn new(wire: Wire) -> Result<Self> {
        wire.vlan(10)?;
        wire.vlan(20)?;
        let mut containers = BTreeMap::new();
        for station in [A, B, C, Elsewhere] {
            containers.insert(station, wire.container(station.vid(), &station.ipv4())?);
        }
        let lan = Self {
            attached: None,
            since: Instant::now(),
            containers,
            wire,
        };
        for station in [Router, Host, A, B, C, Elsewhere] {
            let (ipv4, ipv6) = (station.ipv4(), station.ipv6());
            let mut line = format!(
                "echo 0 >/proc/sys/net/ipv6/conf/$DEV/disable_ipv6 && \
                 ip addr add {ipv6}/64 dev $DEV nodad"
            );
            if !lan.containers.contains_key(&station) {
                line += &format!(" && ip addr add {ipv4}/24 dev $DEV");
            }
            lan.run(station, &line)?;
        }
        let settled = || {
            let busy = |station| Ok(lan.inet6(station)?.iter().any(|one| one.tentative));
            let busy: Result<Vec<bool>> = STATIONS.into_iter().map(busy).collect();
            Ok(!busy?.contains(&true))
        };
        ensure!(
            eventually(10, settled)?,
            "link-local addresses stay tentative"
        );
        Ok(lan)
    }

    /// With all that makes it drop or change a frame that comes in.
    pub fn attach(&mut self, ingress: &str) -> Result<()> {
        let options = ["--ingress", ingress, "--shed", "mac"];
        self.attached = Some(Attached::start(
            &self.wire.host,
            &self.wire.trunk,
            &options,
        )?);
        self.since = Instant::now();
        Ok(())
    }

    /// Says how many frames for everyone came by the wire. What a healthy network sends is within any limit.
    pub fn detach(&mut self) -> Result<()> {
        let Some(attached) = self.attached.take() else {
            return Ok(());
        };
        let row = attached.row(10)?;
        let packets = &row["rx"]["packets"];
        let groups = ["multicast", "broadcast"].map(|cast| packets[cast].as_u64().unwrap_or(0));
        println!(
            "{groups:?} multicasts and broadcasts in {:?}",
            self.since.elapsed()
        );
        for cause in ["storm", "group"] {
            ensure!(row["drops"][cause] == 0, "{row:#}");
        }
        attached.stop()
    }

    /// How many packets went to their only receiver so far; `None` without vlanfast.
    pub fn steered(&self) -> Result<Option<u64>> {
        let Some(attached) = &self.attached else {
            return Ok(None);
        };
        let row = attached.row(10)?;
        let steered = row["verdicts"]["rx"]["steer"].as_u64();
        steered.context("no number").map(Some)
    }

    /// Whether some were, if that can be: what comes out alike would show nothing else.
    pub fn is_steered(&self) -> Result<bool> {
        Ok(self.steered()?.is_none_or(|steered| steered > 0))
    }

    pub fn netns(&self, station: Station) -> &Netns {
        match station {
            Router => &self.wire.router,
            Host => &self.wire.host,
            container => &self.containers[&container],
        }
    }

    pub fn device(&self, station: Station) -> String {
        match station {
            Router => format!("{WIRE}.10"),
            Host => format!("{}.10", self.wire.trunk),
            _ => "eth0".to_owned(),
        }
    }

    /// Runs a shell's line at a station, with the name of its device in `$DEV`.
    pub fn run(&self, station: Station, line: &str) -> Result<String> {
        let line = format!("DEV={}; {line}", self.device(station));
        self.netns(station).run(&line)
    }

    /// Runs a shell's line that may fail.
    pub fn end(&self, station: Station, line: &str) -> Result<Ended> {
        let line = format!("DEV={}; {line}", self.device(station));
        end(self.netns(station).command("sh").args(["-c", &line]))
    }

    pub fn mac(&self, station: Station) -> Result<String> {
        let device = self.device(station);
        in_netns(&self.netns(station).path(), move || {
            getifaddrs()?
                .filter(|one| one.interface_name == device)
                .find_map(|one| Some(*one.address?.as_link_addr()?))
                .and_then(|link| Some(link.addr()?.map(|byte| format!("{byte:02x}")).join(":")))
                .with_context(|| format!("{device} has no MAC"))
        })
    }

    /// Whose MAC that is.
    pub fn owner(&self, mac: &str) -> Result<Station> {
        for station in [Router, Host, A, B, C, Elsewhere] {
            if self.mac(station)?.eq_ignore_ascii_case(mac) {
                return Ok(station);
            }
        }
        anyhow::bail!("{mac} is nobody's")
    }

    /// Whether one ping is answered.
    pub fn pings(&self, station: Station, address: &str) -> Result<bool> {
        let ended = self.end(station, &format!("ping -c 1 -W 4 {address}"))?;
        Ok(ended.code == Some(0))
    }

    /// A station's neighbour table, by address.
    pub fn neighbours(&self, station: Station) -> Result<BTreeMap<String, Known>> {
        let text = self.run(station, "ip -j neigh show dev $DEV nud all")?;
        let entries: Vec<Value> = serde_json::from_str(&text).context("the table is JSON")?;
        let read = |entry: &Value| {
            // INCOMPLETE has no MAC, and will be FAILED or better in a moment.
            let known = match entry["lladdr"].as_str() {
                Some(mac) if entry["state"][0] != "FAILED" => {
                    self.owner(mac).map_or(Known::Gone, Known::At)
                }
                _ => Known::Failed,
            };
            Some((entry["dst"].as_str()?.to_owned(), known))
        };
        Ok(entries.iter().filter_map(read).collect())
    }

    /// What a station knows of an address, if anything.
    pub fn known(&self, station: Station, address: &str) -> Result<Option<Known>> {
        Ok(self.neighbours(station)?.get(address).copied())
    }

    /// The IPv6 addresses of a station's device.
    pub fn inet6(&self, station: Station) -> Result<Vec<Inet6>> {
        let device = self.device(station);
        in_netns(&self.netns(station).path(), move || {
            let table = fs::read_to_string("/proc/thread-self/net/if_inet6")?;
            let lines = table.lines().map(|line| line.split_whitespace());
            lines
                .map(Vec::from_iter)
                .filter(|words| words.last() == Some(&device.as_str()))
                .map(|words| Inet6::read(&words).with_context(|| format!("{words:?}")))
                .collect()
        })
    }
}

/// An IPv6 address of a device.
#[derive(Clone, Debug)]
pub struct Inet6 {
    pub address: Ipv6Addr,
    /// Duplicate address detection still runs.
    pub tentative: bool,
    pub dadfailed: bool,
}

impl Inet6 {
    /// Address, index, prefix length, scope, flags and device, in hexadecimal.
    fn read(words: &[&str]) -> Option<Self> {
        let address = u128::from_str_radix(words.first()?, 16).ok()?;
        let flags = u32::from_str_radix(words.get(4)?, 16).ok()?;
        let dadfailed = flags & libc::IFA_F_DADFAILED != 0;
        Some(Self {
            address: address.into(),
            tentative: flags & libc::IFA_F_TENTATIVE != 0 && !dadfailed,
            dadfailed,
        })
    }
}

/// Whether something is so within a number of seconds.
pub fn eventually(seconds: u64, holds: impl Fn() -> Result<bool>) -> Result<bool> {
    let start = Instant::now();
    while !holds()? {
        if start.elapsed() > Duration::from_secs(seconds) {
            return Ok(false);
        }
        thread::sleep(Duration::from_millis(200));
    }
    Ok(true)
}

/// Does work for each at once: most of it is waiting for who does not answer.
pub fn at_once<T: Send, R: Send, const N: usize>(
    each: [T; N],
    work: impl Fn(T) -> R + Sync,
) -> [R; N] {
    let work = &work;
    thread::scope(|scope| {
        each.map(|one| scope.spawn(move || work(one)))
            .map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })
}

/// Time for vlanfast to hear of a change, and for frames to arrive.
pub fn moment() {
    thread::sleep(Duration::from_secs(1));
}

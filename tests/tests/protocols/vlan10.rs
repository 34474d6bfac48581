//! VLAN 10 with a router, the host's own device and three containers, and a container on VLAN 20.

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

/// The stations of the two VLANs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Station {
    /// The router is at the other end of the wire.
    Router,
    /// The Docker host itself has a device on VLAN 10.
    Host,
    A,
    B,
    C,
    /// This container is on VLAN 20: its addresses are free on VLAN 10.
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

pub struct Vlan10 {
    attached: Option<Attached>,
    since: Instant,
    // The containers are dropped before the host, on whose devices theirs depend.
    containers: BTreeMap<Station, Netns>,
    pub wire: Wire,
}

/// The state of a station's neighbour entry for an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// The entry has the MAC of that station. It may be reachable, stale or in a probe, depending on the moment.
    At(Station),
    /// The entry has a MAC that no station has, or has any more.
    Gone,
    Failed,
}

impl Vlan10 {
    pub fn new(wire: Wire) -> Result<Self> {
        wire.vlan(10)?;
        wire.vlan(20)?;
        let mut containers = BTreeMap::new();
        for station in [A, B, C, Elsewhere] {
            containers.insert(station, wire.container(station.vid(), &station.ipv4())?);
        }
        let vlan10 = Self {
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
            if !vlan10.containers.contains_key(&station) {
                line += &format!(" && ip addr add {ipv4}/24 dev $DEV");
            }
            vlan10.run(station, &line)?;
        }
        let settled = || {
            let busy = |station| Ok(vlan10.inet6(station)?.iter().any(|one| one.tentative));
            let busy: Result<Vec<bool>> = STATIONS.into_iter().map(busy).collect();
            Ok(!busy?.contains(&true))
        };
        ensure!(
            eventually(10, settled)?,
            "link-local addresses stay tentative"
        );
        Ok(vlan10)
    }

    /// Attaches with all features that drop or change incoming frames.
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

    /// Prints how many group frames came by the wire. The traffic of a healthy network stays within every limit.
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

    /// Returns how many packets were steered so far; `None` without vlanfast.
    pub fn steered(&self) -> Result<Option<u64>> {
        let Some(attached) = &self.attached else {
            return Ok(None);
        };
        let row = attached.row(10)?;
        let steered = row["verdicts"]["rx"]["steer"].as_u64();
        steered.context("no number").map(Some)
    }

    /// Checks that packets were steered, if vlanfast is attached: without this, an equal outcome would prove nothing.
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

    /// Runs a shell command at a station, with the name of its device in `$DEV`.
    pub fn run(&self, station: Station, line: &str) -> Result<String> {
        let line = format!("DEV={}; {line}", self.device(station));
        self.netns(station).run(&line)
    }

    /// Runs a shell command that may fail.
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

    /// Returns the station that has a MAC.
    pub fn owner(&self, mac: &str) -> Result<Station> {
        for station in [Router, Host, A, B, C, Elsewhere] {
            if self.mac(station)?.eq_ignore_ascii_case(mac) {
                return Ok(station);
            }
        }
        anyhow::bail!("no station has {mac}")
    }

    /// Checks whether one ping is answered.
    pub fn pings(&self, station: Station, address: &str) -> Result<bool> {
        let ended = self.end(station, &format!("ping -c 1 -W 4 {address}"))?;
        Ok(ended.code == Some(0))
    }

    /// Returns a station's neighbour table, by address.
    pub fn neighbours(&self, station: Station) -> Result<BTreeMap<String, Known>> {
        let text = self.run(station, "ip -j neigh show dev $DEV nud all")?;
        let entries: Vec<Value> = serde_json::from_str(&text).context("the table is JSON")?;
        let read = |entry: &Value| {
            // An INCOMPLETE entry has no MAC, and changes to FAILED or better in a moment.
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

    /// Returns the state of a station's neighbour entry for an address, if there is one.
    pub fn known(&self, station: Station, address: &str) -> Result<Option<Known>> {
        Ok(self.neighbours(station)?.get(address).copied())
    }

    /// Returns the IPv6 addresses of a station's device.
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
    /// Whether duplicate address detection still runs.
    pub tentative: bool,
    pub dadfailed: bool,
}

impl Inet6 {
    /// Parses address, index, prefix length, scope, flags and device, in hexadecimal.
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

/// Waits for a condition for a number of seconds, and returns whether it holds.
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

/// Works on all items in parallel: most of the time is spent waiting for stations that do not answer.
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

/// Waits until vlanfast has seen a change, and frames have arrived.
pub fn moment() {
    thread::sleep(Duration::from_secs(1));
}

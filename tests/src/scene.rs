//! One VLAN of a trunk with all who are on it: the router, which sends and hears what is answered, the host
//! itself, and containers that hear what reaches them.

use std::{
    ops::Add,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::{
    capture::Packets,
    messages::{ABSENT6, SENDER, SENDER6, arp, group, solicitation},
    packet::{BROADCAST, PEER, frame},
    program::{Attached, vlanfast},
    require::kernel_at_least,
    sync::{attach, eventually},
    topology::{Netns, WIRE, Wire},
};

/// How long anything is waited for that must come.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long anything is waited for that must not come.
const QUIET: Duration = Duration::from_millis(200);

/// Whoever takes frames on the VLAN.
#[derive(Clone, Copy, Debug)]
pub struct Receiver {
    pub mac: [u8; 6],
    pub address: [u8; 4],
    pub address6: [u8; 16],
}

impl Receiver {
    /// `10.0.10.<number>` and `fd00::1:<number>`.
    fn new(mac: [u8; 6], number: u8) -> Self {
        let mut address6 = ABSENT6;
        address6[15] = number;
        Self {
            mac,
            address: [10, 0, 10, number],
            address6,
        }
    }
}

/// An ARP request of the router for an address.
pub fn request(address: [u8; 4]) -> Vec<u8> {
    frame(BROADCAST, &arp(1, SENDER, address), 60)
}

/// The router's neighbour solicitation for an address.
pub fn solicit(address: [u8; 16]) -> Vec<u8> {
    frame(group(address).1, &solicitation(SENDER6, address), 60)
}

/// What `counters --json` says about packets that came in on a VLAN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Decisions {
    pub pass: u64,
    pub steer: u64,
    pub storm: u64,
    pub group: u64,
    pub shed_vlan: u64,
    pub shed_mac: u64,
    pub disputed: u64,
}

impl Decisions {
    /// Also where nobody is left who attached.
    pub fn of(wire: &Wire, vid: u16) -> Result<Self> {
        let vid = vid.to_string();
        let arguments = ["counters", &wire.trunk, "--vlan", &vid, "--json"];
        let ended = vlanfast(&wire.host, &arguments)?;
        ensure!(ended.code == Some(0), "{arguments:?}: {}", ended.stderr);
        let rows: Value = serde_json::from_str(&ended.stdout)?;
        let row = &rows[0];
        let number = |value: &Value| value.as_u64().context("a count is a number");
        let decisions = Self {
            pass: number(&row["verdicts"]["rx"]["pass"])?,
            steer: number(&row["verdicts"]["rx"]["steer"])?,
            storm: number(&row["drops"]["storm"])?,
            group: number(&row["drops"]["group"])?,
            shed_vlan: number(&row["drops"]["shed_vlan"])?,
            shed_mac: number(&row["drops"]["shed_mac"])?,
            disputed: number(&row["disputed"])?,
        };
        let dropped = number(&row["verdicts"]["rx"]["drop"])?;
        ensure!(dropped == decisions.dropped(), "{row}");
        Ok(decisions)
    }

    pub fn dropped(&self) -> u64 {
        self.storm + self.group + self.shed_vlan + self.shed_mac
    }
}

impl Add for Decisions {
    type Output = Self;

    fn add(self, more: Self) -> Self {
        Self {
            pass: self.pass + more.pass,
            steer: self.steer + more.steer,
            storm: self.storm + more.storm,
            group: self.group + more.group,
            shed_vlan: self.shed_vlan + more.shed_vlan,
            shed_mac: self.shed_mac + more.shed_mac,
            disputed: self.disputed + more.disputed,
        }
    }
}

/// See the module.
pub struct Scene {
    /// Namespaces of their own, and what they hear. They go before the wire that they hang on.
    containers: Vec<Netns>,
    pub receivers: Vec<Receiver>,
    pub host: Receiver,
    router: Packets,
    pub wire: Wire,
    /// 0 is the trunk itself.
    pub vid: u16,
    ingress: &'static str,
}

impl Scene {
    /// The host's device for the VLAN.
    fn parent(&self) -> String {
        device(&self.wire.trunk, self.vid)
    }

    /// On a wire that has no VLANs yet, with a number of containers.
    pub fn new(wire: Wire, vid: u16, ingress: &'static str, containers: u8) -> Result<Self> {
        if vid != 0 {
            wire.vlan(vid)?;
        }
        let (parent, at_router) = (device(&wire.trunk, vid), device(WIRE, vid));
        let mac = wire.host.mac(&parent)?;
        let router = Packets::open(&wire.router.path(), &at_router, false)?;
        let mut scene = Self {
            containers: vec![],
            receivers: vec![],
            host: Receiver::new(mac, 250),
            router,
            wire,
            vid,
            ingress,
        };
        let host = &scene.wire.host;
        host.run(&addressed(&parent, &scene.host))?;
        for number in 2..2 + containers {
            scene.add(Receiver::new([2, 0, 0, 0, 1, number], number))?;
        }
        Ok(scene)
    }

    /// One more container.
    pub fn add(&mut self, receiver: Receiver) -> Result<()> {
        let (container, parent) = (Netns::new()?, self.parent());
        let mac = shown(receiver.mac);
        self.wire.host.run(&format!(
            "ip link add link {parent} name mv address {mac} type macvlan mode bridge && \
             ip link set mv netns {}",
            container.name
        ))?;
        // macvlan hands groups to those alone who have joined them: here everyone has, so that it is not
        // for that that nobody else hears a solicitation.
        let others = (2..10).map(|number| group(Receiver::new(receiver.mac, number).address6).1);
        let groups = others.chain([
            group(self.host.address6).1,
            group(ABSENT6).1,
            [1, 0, 0x5e, 0, 0, 0xfb],
            [0x33, 0x33, 0, 0, 0, 0xfb],
        ]);
        container.run(&format!(
            "ip link set mv name eth0 && ip link set eth0 up && {}",
            addressed("eth0", &receiver)
        ))?;
        container.join("eth0", groups.collect())?;
        self.containers.push(container);
        self.receivers.push(receiver);
        Ok(())
    }

    /// A container, whose device is `eth0`.
    pub fn container(&self, number: usize) -> &Netns {
        &self.containers[number]
    }

    /// Runs a shell's line in a container, whose device is `eth0`.
    pub fn run(&self, container: usize, line: &str) -> Result<String> {
        self.containers[container].run(line)
    }

    /// Attaches, and waits until everyone is known.
    pub fn attach(&self, more: &[&str]) -> Result<Attached> {
        let arguments = [&["--ingress", self.ingress], more].concat();
        let attached = attach(&self.wire, &arguments);
        let kind = attached.kind("ingress")?;
        let expected = match self.ingress {
            "tc" if kernel_at_least(6, 6) => "tcx",
            "tc" => "clsact",
            "xdp-generic" => "xdp-generic",
            // Also `auto`, on the devices that it is left the choice here.
            _ => "xdp-native",
        };
        ensure!(kind == expected, "ingress is {kind}, not {expected}");
        eventually("everyone", &attached, |endpoints| {
            endpoints.len() == self.receivers.len()
        });
        Ok(attached)
    }

    /// Whether ingress is read before packet sockets see a frame, as XDP does and TC does not.
    pub fn is_before_captures(&self) -> bool {
        self.ingress != "tc"
    }

    /// Sends a frame on the VLAN some times.
    pub fn send(&self, frame: &[u8], times: u64) -> Result<()> {
        (0..times).try_for_each(|_| self.router.send(frame))
    }

    /// One more socket that sends on the VLAN.
    pub fn sender(&self) -> Result<Packets> {
        Packets::open(&self.wire.router.path(), &device(WIRE, self.vid), false)
    }

    /// Everybody listens from now on.
    pub fn listen(&self) -> Result<Ears> {
        let router = Packets::open(&self.wire.router.path(), &device(WIRE, self.vid), true)?;
        let containers = self.containers.iter();
        let containers = containers.map(|netns| Packets::open(&netns.path(), "eth0", true));
        Ok(Ears {
            router: Ear::new(router),
            containers: containers
                .map(|socket| socket.map(Ear::new))
                .collect::<Result<_>>()?,
            receivers: self.receivers.clone(),
        })
    }

    /// Waits until this is what was counted on the VLAN, and nothing more.
    pub fn counted(&self, expected: Decisions) -> Result<()> {
        let read = || Decisions::of(&self.wire, self.vid);
        settled("the counters", expected, read)
    }
}

/// The device for a VLAN.
fn device(lower: &str, vid: u16) -> String {
    match vid {
        0 => lower.to_owned(),
        vid => format!("{lower}.{vid}"),
    }
}

/// Gives a device its addresses, and nothing that would talk by itself.
fn addressed(device: &str, receiver: &Receiver) -> String {
    let [.., number] = receiver.address;
    format!(
        "ip link set {device} addrgenmode none && \
         echo 0 >/proc/sys/net/ipv6/conf/{device}/disable_ipv6 && \
         ip addr add 10.0.10.{number}/24 dev {device} && \
         ip addr add fd00::1:{number:x}/64 dev {device} nodad"
    )
}

fn shown(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Waits until something is as it should be, and then for what should not come.
fn settled<T: PartialEq + std::fmt::Debug>(
    what: &str,
    expected: T,
    mut read: impl FnMut() -> Result<T>,
) -> Result<()> {
    let start = Instant::now();
    let mut is_as_expected = || -> Result<(bool, T)> {
        let found = read()?;
        Ok((found == expected, found))
    };
    while !is_as_expected()?.0 && start.elapsed() < PATIENCE {
        thread::sleep(Duration::from_millis(20));
    }
    thread::sleep(QUIET);
    let (is_so, found) = is_as_expected()?;
    ensure!(is_so, "{what}: {found:?} instead of {expected:?}");
    Ok(())
}

/// All that one device has received.
struct Ear {
    socket: Packets,
    heard: Vec<Vec<u8>>,
}

impl Ear {
    fn new(socket: Packets) -> Self {
        let heard = vec![];
        Self { socket, heard }
    }

    fn frames(&mut self) -> Result<&[Vec<u8>]> {
        self.heard.extend(self.socket.incoming()?);
        Ok(&self.heard)
    }

    fn count(&mut self, condition: impl Fn(&[u8]) -> bool) -> Result<u64> {
        let frames = self.frames()?.iter();
        Ok(frames.filter(|frame| condition(frame)).count() as u64)
    }
}

/// How often one container heard something: by the destination that it was sent to, and by its own MAC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    pub as_sent: u64,
    pub steered: u64,
}

impl Heard {
    pub const NOTHING: Self = Self::by_group(0);

    pub const fn by_group(as_sent: u64) -> Self {
        let steered = 0;
        Self { as_sent, steered }
    }

    pub const fn alone(steered: u64) -> Self {
        let as_sent = 0;
        Self { as_sent, steered }
    }
}

/// All that the router and the containers receive; containers by their number.
pub struct Ears {
    router: Ear,
    containers: Vec<Ear>,
    receivers: Vec<Receiver>,
}

impl Ears {
    /// How often each container has heard the frames that a condition takes, which gets all that is behind
    /// the addresses. Of the router's frames alone: containers may well talk among themselves.
    pub fn heard(&mut self, condition: impl Fn(&[u8]) -> bool) -> Result<Vec<Heard>> {
        let containers = self.containers.iter_mut().zip(&self.receivers);
        let heard = containers.map(|(ear, receiver)| {
            let mut heard = Heard::NOTHING;
            for frame in ear.frames()? {
                if frame[6..12] != PEER || !condition(&frame[12..]) {
                    continue;
                }
                match frame[0] & 1 {
                    1 => heard.as_sent += 1,
                    _ if frame[..6] == receiver.mac => heard.steered += 1,
                    _ => bail!("a frame with a strange destination: {:x?}", &frame[..6]),
                }
            }
            Ok(heard)
        });
        heard.collect()
    }

    /// Waits until this is how often each container has heard a frame.
    pub fn have_heard(&mut self, frame: &[u8], expected: &[Heard]) -> Result<()> {
        let expected = expected.to_vec();
        settled("heard", expected, || {
            self.heard(|rest| *rest == frame[12..])
        })
    }

    /// Waits until the router has this many answers from a receiver to its ARP requests.
    pub fn answers(&mut self, receiver: &Receiver, expected: u64) -> Result<()> {
        let start = [&PEER[..], &receiver.mac, &arp(2, receiver.address, SENDER)[..10]].concat();
        let is_answer = |frame: &[u8]| {
            frame.starts_with(&start) && frame[28..32] == receiver.address && frame[38..42] == SENDER
        };
        settled("ARP replies", expected, || self.router.count(is_answer))
    }

    /// The same to its solicitations: neighbour advertisements (RFC 4861 clause 4.4).
    pub fn advertisements(&mut self, receiver: &Receiver, expected: u64) -> Result<()> {
        let start = [&PEER[..], &receiver.mac, &[0x86, 0xdd]].concat();
        let is_answer = |frame: &[u8]| {
            frame.starts_with(&start)
                && frame.len() >= 78
                && frame[38..54] == SENDER6
                && frame[54] == 136
                && frame[62..78] == receiver.address6
        };
        settled("advertisements", expected, || self.router.count(is_answer))
    }
}

//! Steady traffic both ways over a trunk, counted at both ends.

use std::{
    fmt,
    net::{Ipv4Addr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::Result;
use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};

use crate::{
    net::{
        capture::Packets,
        namespace::{Netns, in_netns},
        packet::{ROUTER_MAC, TRUNK_MAC, frame},
        topology::{WIRE, Wire},
    },
    run::require::in_the_lab,
};

/// The packets of one direction: sent, received and lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally {
    pub sent: u64,
    /// How often the sender's egress hook saw the packets: a veth refuses a packet when its peer's queue is full, and
    /// the sender repeats it.
    pub seen: u64,
    pub arrived: u64,
}

impl Tally {
    pub fn lost(self) -> i64 {
        self.sent as i64 - self.arrived as i64
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} sent, {} lost", self.sent, self.lost())
    }
}

/// Traffic that runs until it is stopped. Each end counts the datagrams at a UDP socket, so other traffic on the wire
/// does not matter.
pub struct Traffic<'a> {
    wire: &'a Wire,
    sending: Arc<AtomicBool>,
    receiving: Arc<AtomicBool>,
    inwards: Way,
    outwards: Way,
}

/// One direction: its sender and its counter.
struct Way {
    sender: JoinHandle<(u64, u64)>,
    counter: JoinHandle<u64>,
}

/// One end of the wire.
struct End<'a> {
    netns: &'a Netns,
    device: &'a str,
    mac: [u8; 6],
    address: [u8; 4],
}

const PORT: u16 = 9000;

/// A rate in packets per second each way that leaves the CPUs to the code under test; it is low under emulation.
pub fn rate() -> u64 {
    match in_the_lab() {
        true => 2_000,
        false => 10_000,
    }
}

impl<'a> Traffic<'a> {
    /// Starts sending `rate` packets a second each way.
    pub fn start(wire: &'a Wire, rate: u64) -> Result<Self> {
        let (host, router) = ends(wire);
        let sending = Arc::new(AtomicBool::new(true));
        let receiving = Arc::new(AtomicBool::new(true));
        let start = |from: &End, to: &End| -> Result<Way> {
            Ok(Way {
                counter: to.count(&receiving)?,
                sender: Packets::open(&from.netns.path(), from.device, false)?.send_steadily(
                    datagram(from, to),
                    rate,
                    Arc::clone(&sending),
                ),
            })
        };
        for end in [&host, &router] {
            end.netns
                .run(&format!("ip addr add {}/24 dev {}", end.ip(), end.device))?;
        }
        let (inwards, outwards) = (start(&router, &host)?, start(&host, &router)?);
        Ok(Self {
            wire,
            sending,
            receiving,
            inwards,
            outwards,
        })
    }

    /// Stops the traffic, waits for the last packet, and returns the counts of ingress and egress.
    pub fn stop(self) -> Result<(Tally, Tally)> {
        self.sending.store(false, Ordering::Relaxed);
        let (in_, out) = (joined(self.inwards.sender), joined(self.outwards.sender));
        thread::sleep(Duration::from_millis(500));
        self.receiving.store(false, Ordering::Release);
        let tally = |(sent, seen), counter| Tally {
            sent,
            seen,
            arrived: joined(counter),
        };
        let inwards = tally(in_, self.inwards.counter);
        let outwards = tally(out, self.outwards.counter);
        let (host, router) = ends(self.wire);
        for end in [&host, &router] {
            end.netns
                .run(&format!("ip addr del {}/24 dev {}", end.ip(), end.device))?;
        }
        Ok((inwards, outwards))
    }
}

fn ends(wire: &Wire) -> (End<'_>, End<'_>) {
    let host = End {
        netns: &wire.host,
        device: &wire.trunk,
        mac: TRUNK_MAC,
        address: [198, 51, 100, 1],
    };
    let router = End {
        netns: &wire.router,
        device: WIRE,
        mac: ROUTER_MAC,
        address: [198, 51, 100, 2],
    };
    (host, router)
}

impl End<'_> {
    fn ip(&self) -> Ipv4Addr {
        self.address.into()
    }

    /// Counts datagrams until it is told to stop and none is left.
    fn count(&self, receiving: &Arc<AtomicBool>) -> Result<JoinHandle<u64>> {
        let address = (self.ip(), PORT);
        let sink = in_netns(&self.netns.path(), move || {
            let socket = UdpSocket::bind(address)?;
            setsockopt(&socket, RcvBufForce, &(64 << 20))?;
            socket.set_read_timeout(Some(Duration::from_millis(200)))?;
            Ok(socket)
        })?;
        let receiving = Arc::clone(receiving);
        Ok(thread::spawn(move || {
            let (mut count, mut buffer) = (0, [0; 64]);
            loop {
                let more = receiving.load(Ordering::Acquire);
                while sink.recv(&mut buffer).is_ok() {
                    count += 1;
                }
                if !more {
                    return count;
                }
            }
        }))
    }
}

fn joined<T>(thread: JoinHandle<T>) -> T {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Builds an untagged UDP datagram (RFC 791, RFC 768; without a UDP checksum).
fn datagram(from: &End, to: &End) -> Vec<u8> {
    let mut ip = vec![0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17, 0, 0];
    ip.extend(from.address);
    ip.extend(to.address);
    let sum: u32 = ip
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !(((folded & 0xffff) + (folded >> 16)) as u16);
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    let port = PORT.to_be_bytes();
    let udp = [port, port, [0, 26], [0, 0]].concat();
    let mut bytes = frame(to.mac, &[&[8, 0][..], &ip, &udp].concat(), 60);
    bytes[6..12].copy_from_slice(&from.mac);
    bytes
}

//! Steady traffic both ways over a trunk, counted by the kernel at both ends.

use std::{
    fmt,
    net::UdpSocket,
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
    capture::{Packets, in_netns},
    packet::{HOST, frame},
    topology::{WIRE, Wire},
};

/// What became of the packets of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally {
    pub sent: u64,
    /// How many times the sender's egress saw them: a veth refuses what finds no room at its peer,
    /// and that is sent again.
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

/// Traffic that runs until it is stopped. Each end counts by itself: a UDP socket behind the trunk
/// what comes in, the device at the other end of the wire what goes out.
pub struct Traffic<'a> {
    wire: &'a Wire,
    sending: Arc<AtomicBool>,
    receiving: Arc<AtomicBool>,
    inwards: JoinHandle<(u64, u64)>,
    outwards: JoinHandle<(u64, u64)>,
    counter: JoinHandle<u64>,
    received_before: u64,
}

const ADDRESS: &str = "192.0.2.1";

impl<'a> Traffic<'a> {
    /// Starts sending `rate` packets a second each way. The wire must be quiet otherwise.
    pub fn start(wire: &'a Wire, rate: u64) -> Result<Self> {
        let trunk = &wire.trunk;
        wire.host
            .run(&format!("ip addr add {ADDRESS}/24 dev {trunk}"))?;
        let sink = in_netns(&wire.host.path(), || {
            let socket = UdpSocket::bind((ADDRESS, 9000))?;
            setsockopt(&socket, RcvBufForce, &(64 << 20))?;
            socket.set_read_timeout(Some(Duration::from_millis(200)))?;
            Ok(socket)
        })?;
        let (sending, receiving) = (AtomicBool::new(true), AtomicBool::new(true));
        let (sending, receiving) = (Arc::new(sending), Arc::new(receiving));
        let counter = thread::spawn({
            let receiving = Arc::clone(&receiving);
            move || count(&sink, &receiving)
        });
        let received_before = Wire::statistic(&wire.router, WIRE, "rx_packets")?;
        let send = |socket: Packets, frame| socket.send_steadily(frame, rate, Arc::clone(&sending));
        let router = Packets::open(&wire.router.path(), WIRE, false)?;
        let host = Packets::open(&wire.host.path(), trunk, false)?;
        let inwards = send(router, udp_frame());
        let outwards = send(host, frame([0x02, 0, 0, 0, 0, 0x0b], &[8, 0], 60));
        Ok(Self {
            wire,
            sending,
            receiving,
            inwards,
            outwards,
            counter,
            received_before,
        })
    }

    /// Stops it, waits for the last packet, and tells what came in and what went out.
    pub fn stop(self) -> Result<(Tally, Tally)> {
        self.sending.store(false, Ordering::Relaxed);
        let (sent_in, seen_in) = joined(self.inwards);
        let (sent_out, seen_out) = joined(self.outwards);
        thread::sleep(Duration::from_millis(500));
        self.receiving.store(false, Ordering::Release);
        let inwards = Tally {
            sent: sent_in,
            seen: seen_in,
            arrived: joined(self.counter),
        };
        let received = Wire::statistic(&self.wire.router, WIRE, "rx_packets")?;
        let outwards = Tally {
            sent: sent_out,
            seen: seen_out,
            arrived: received - self.received_before,
        };
        self.wire
            .host
            .run(&format!("ip addr flush dev {}", self.wire.trunk))?;
        Ok((inwards, outwards))
    }
}

fn joined<T>(thread: JoinHandle<T>) -> T {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Counts datagrams until told to stop and none is left.
fn count(sink: &UdpSocket, receiving: &AtomicBool) -> u64 {
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
}

/// A UDP datagram from 192.0.2.2 to 192.0.2.1:9000 (RFC 791, RFC 768; no UDP checksum).
fn udp_frame() -> Vec<u8> {
    let mut ip = vec![
        0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 2, 192, 0, 2, 1,
    ];
    let sum: u32 = ip
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !(((folded & 0xffff) + (folded >> 16)) as u16);
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    let udp = [0x23, 0x29, 0x23, 0x28, 0, 26, 0, 0];
    frame(HOST, &[&[8, 0][..], &ip, &udp].concat(), 60)
}

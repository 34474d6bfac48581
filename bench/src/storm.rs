//! A storm of ARP requests or neighbour solicitations, most of them for hosts that do not exist.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use vlanfast_tests::net::{
    capture::Packets,
    topology::{WIRE, Wire},
};

use crate::{
    containers::{self, Containers},
    frame::{arp_request, solicitation},
    measure::BURST,
    one_container::OneContainer,
};

/// One request of so many is for a container that is there.
const PROBE: u64 = 32;
/// How many absent hosts are asked for in turn.
const ABSENT: u8 = 255;

/// The frames of a storm, made before it.
pub struct Storm {
    absent: Vec<Vec<u8>>,
    /// One for each container.
    present: Vec<Vec<u8>>,
}

impl Storm {
    pub fn arp(vid: u16, containers: &Containers) -> Self {
        let address = |host| [10, 77, 0, host];
        Self {
            absent: hosts()
                .map(|host| arp_request(vid, address(host)))
                .collect(),
            present: (0..containers.size)
                .map(|number| arp_request(vid, containers::address(number)))
                .collect(),
        }
    }

    /// Solicitations for the containers by one of their addresses. The absent hosts are in another prefix and end as those do:
    /// macvlan, which goes by the group's MAC, copies a request for one to whoever has the group.
    pub fn solicitations(
        vid: u16,
        containers: &Containers,
        address: fn(usize) -> [u8; 16],
    ) -> Self {
        let present = || (0..containers.size).map(address);
        let elsewhere = |mut address: [u8; 16]| {
            address[4..6].copy_from_slice(&[0, 77]);
            address
        };
        let request = |address| solicitation(vid, address);
        Self {
            absent: present().map(elsewhere).map(request).collect(),
            present: present().map(request).collect(),
        }
    }

    /// Sends requests at a steady rate; gives the share of those for containers that were answered. What
    /// the router receives are those answers, and nothing else.
    pub fn rage(&self, network: &OneContainer, rate: u64, seconds: f64) -> Result<f64> {
        let answers = || Wire::statistic(&network.wire.router, WIRE, "rx_packets");
        let before = answers()?;
        let socket = Packets::open(&network.wire.router.path(), WIRE, false)?;
        let mut absent = self.absent.iter().cycle();
        let mut present = self.present.iter().cycle();
        let (mut sent, mut probes) = (0, 0);
        let start = Instant::now();
        while start.elapsed().as_secs_f64() < seconds {
            let due = (start.elapsed().as_secs_f64() * rate as f64) as u64;
            for _ in 0..due.saturating_sub(sent).min(u64::from(BURST)) {
                sent += 1;
                let next = match sent % PROBE {
                    0 => &mut present,
                    _ => &mut absent,
                };
                probes += u64::from(sent % PROBE == 0);
                next.next().map_or(Ok(()), |frame| socket.send(frame))?;
            }
            sleep(Duration::from_micros(50));
        }
        sleep(Duration::from_secs(1));
        drop(socket);
        let answered = answers()? - before;
        ensure!(probes > 0, "the storm never began");
        Ok(answered as f64 / probes as f64)
    }
}

fn hosts() -> impl Iterator<Item = u8> {
    1..=ABSENT
}

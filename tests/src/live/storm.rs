//! The storm limit on live trunks.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use crate::{
    fixtures::{
        one_vlan::{Ears, OneVlan, request, solicit},
        vlan_counts::VlanCounts,
    },
    net::{capture::Packets, cpu::pin, messages::ABSENT6, topology::Wire},
    run::require::in_the_lab,
};

/// A storm of requests for absent hosts; every 32nd request is for a container.
struct Storm {
    /// The number of frames in all.
    frames: u64,
    /// The rate in frames per second.
    rate: u64,
    /// The value of `--storm-limit`.
    limit: u32,
    /// The number of sending threads, each on a CPU of its own as far as there are enough.
    senders: u64,
}

const WANTED: u64 = 32;

impl Storm {
    /// Returns a storm that fits the machine: smaller for the slow lab.
    fn new(senders: u64) -> Self {
        let (frames, rate, limit) = match in_the_lab() {
            true => (3_000, 2_000, 200),
            false => (20_000, 20_000, 500),
        };
        Self {
            frames,
            rate,
            limit,
            senders,
        }
    }

    /// Sends the storm; returns the time since the start at which each frame for an absent host was sent.
    fn rage(
        &self,
        sockets: Vec<Packets>,
        frame: impl Fn(u64) -> Vec<u8> + Sync,
    ) -> Result<Vec<Duration>> {
        let start = Instant::now();
        let send = |first: u64, socket: Packets| -> Result<Vec<Duration>> {
            pin(first as usize)?;
            let mut sent = vec![];
            for number in (first..self.frames).step_by(self.senders as usize) {
                let due = Duration::from_secs_f64(number as f64 / self.rate as f64);
                while due > start.elapsed() {
                    thread::sleep(Duration::from_micros(500));
                }
                if number % WANTED != 0 {
                    sent.push(start.elapsed());
                }
                socket.send(&frame(number))?;
            }
            Ok(sent)
        };
        thread::scope(|scope| {
            let numbered = (0..).zip(sockets);
            let threads: Vec<_> = numbered
                .map(|(first, socket)| scope.spawn(move || send(first, socket)))
                .collect();
            let mut sent = vec![];
            for thread in threads {
                let one = thread.join();
                sent.extend(one.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
            }
            sent.sort();
            Ok(sent)
        })
    }

    /// Computes how many of some frames a bucket with 50 ms of tokens lets pass, from their times. The limit is
    /// compared with this number, so that the speed of sending does not matter.
    fn admitted(&self, times: &[Duration]) -> u64 {
        let rate = f64::from(self.limit);
        let full = rate * 0.05;
        let (mut tokens, mut last, mut admitted) = (full, Duration::ZERO, 0);
        for &time in times {
            tokens = full.min(tokens + (time - last).as_secs_f64() * rate);
            last = time;
            if tokens >= 1.0 {
                tokens -= 1.0;
                admitted += 1;
            }
        }
        admitted
    }
}

/// Runs one storm of ARP requests and one of neighbour solicitations.
pub fn a_storm_is_limited_and_every_endpoint_still_answers(
    wire: Wire,
    vid: u16,
    ingress: &'static str,
) -> Result<()> {
    let vlan = OneVlan::new(wire, vid, ingress, 3)?;
    storms(&vlan, Ok)
}

/// Runs one storm of ARP requests and one of neighbour solicitations, over all queues of a trunk and from all CPUs.
pub fn a_storm_that_comes_in_by_several_queues_is_cut_off_as_one(
    wire: Wire,
    vid: u16,
    ingress: &'static str,
) -> Result<()> {
    let vlan = OneVlan::new(wire, vid, ingress, 3)?;
    let by_queue = || -> Result<Vec<u64>> {
        let (host, trunk) = (&vlan.wire.host, &vlan.wire.trunk);
        let text = host.run(&format!("ethtool -S {trunk}"))?;
        let names = (0..).map(|queue| format!("rx_queue_{queue}_xdp_packets: "));
        let counts = names.map_while(|name| text.split_once(&name).map(|(_, rest)| rest));
        let first = |rest: &str| {
            rest.lines()
                .next()
                .unwrap_or_default()
                .trim()
                .parse::<u64>()
        };
        Ok(counts.map(first).collect::<Result<_, _>>()?)
    };
    storms(&vlan, Packets::by_cpu)?;
    let queues = by_queue()?;
    ensure!(
        queues.len() > 1 && queues.iter().all(|&packets| packets > 1000),
        "the trunk's queues got {queues:?}"
    );
    Ok(())
}

/// Every container has received the frames within the limit, and alone the requests for its own address.
fn containers_heard(
    ears: &mut Ears,
    name: &str,
    kind: [u8; 2],
    passed: u64,
    wants: &[u64],
) -> Result<()> {
    let heard = ears.heard(|rest| rest.starts_with(&kind))?;
    for (heard, &wants) in heard.iter().zip(wants) {
        // macvlan queues up to a thousand broadcasts, and may drop further ones.
        let at_least = passed.min(1000);
        ensure!(
            heard.steered == wants && (at_least..=passed).contains(&heard.as_sent),
            "{name}: {heard:?} where {passed} passed and {wants} were for it"
        );
    }
    Ok(())
}

fn storms(vlan: &OneVlan, prepared: fn(Packets) -> Result<Packets>) -> Result<()> {
    let storm = Storm::new(2);
    let attached = vlan.attach(&["--storm-limit", &storm.limit.to_string()])?;
    let wanted = |number: u64| (number / WANTED) as usize % vlan.endpoints.len();
    let by_arp = |number: u64| match number % WANTED {
        0 => request(vlan.endpoints[wanted(number)].address),
        other => request([10, 0, 10, 100 + other as u8]),
    };
    let by_solicitation = |number: u64| match number % WANTED {
        0 => solicit(vlan.endpoints[wanted(number)].address6),
        _ => solicit(ABSENT6),
    };
    type Frames<'a> = &'a (dyn Fn(u64) -> Vec<u8> + Sync);
    let both: [(Frames, _, _); 2] = [
        (&by_arp, "ARP", [0x08, 0x06]),
        (&by_solicitation, "ND", [0x86, 0xdd]),
    ];
    let mut before = VlanCounts::default();
    for (frame, name, kind) in both {
        let mut ears = vlan.listen()?;
        let sockets = (0..storm.senders).map(|_| vlan.sender().and_then(prepared));
        let sent = storm.rage(sockets.collect::<Result<_>>()?, frame)?;
        let mut wants = vec![0; vlan.endpoints.len()];
        (0..storm.frames)
            .step_by(WANTED as usize)
            .for_each(|number| wants[wanted(number)] += 1);
        for (endpoint, &times) in vlan.endpoints.iter().zip(&wants) {
            match name {
                "ARP" => ears.answers(endpoint, times)?,
                _ => ears.advertisements(endpoint, times)?,
            }
        }
        let after = VlanCounts::of(&vlan.wire, vlan.vid)?;
        let passed = after.pass - before.pass;
        let expected = VlanCounts {
            pass: passed,
            steer: wants.iter().sum(),
            storm: sent.len() as u64 - passed,
            ..VlanCounts::default()
        };
        vlan.counted(before + expected)?;
        before = after;

        let admitted = storm.admitted(&sent);
        let burst = u64::from(storm.limit) / 20;
        ensure!(
            passed.abs_diff(admitted) <= admitted / 10 + burst,
            "{name}: {passed} passed the limit where {admitted} should"
        );
        ensure!(expected.storm > 0, "{name}: that was no storm");
        containers_heard(&mut ears, name, kind, passed, &wants)?;
    }
    attached.stop()
}

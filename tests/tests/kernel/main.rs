//! Level `kernel`: runs the shipped object through `BPF_PROG_TEST_RUN`, frame by frame. The kernel, the host's own
//! run of the same logic, and the corpus must agree.

mod decisions;
mod learned;
mod parents;

use std::collections::BTreeMap;

use aya::{
    Ebpf,
    maps::{Array, PerCpuArray},
    programs::{TestRun, TestRunOptions},
};
use decisions::{ALL, STEERING};
use vlanfast::maps::load;
use vlanfast_common::{
    Bytes, Counters, Direction, Policy, Shortcut, Tag, Verdict, Vlan, classify, parse, wire,
};
use vlanfast_tests::{
    fixtures::{
        corpus::{CorpusFrame, corpus},
        tables::{FAR_PARENT, TableFixture},
    },
    net::{
        messages::ipv4_checksum,
        tally::{Cast, CounterKey},
    },
    require,
    run::tag_in_metadata::TaggedRun,
};

/// The log level of `attach -vv` in aya-log's numbering.
const EVERY_FRAME: u8 = 5;

/// Returns the counters' key of a row of the corpus, by the documented numbers.
fn key(row: CounterKey) -> u32 {
    match row {
        CounterKey::Vlan(vid) => vid.into(),
        CounterKey::Service => 4096,
        CounterKey::Truncated => 4097,
    }
}

/// Reads the counters by key; an absent entry counts as 0.
type Counted = BTreeMap<u32, Counters>;

fn counters(ebpf: &Ebpf, keys: impl Iterator<Item = u32>) -> Counted {
    let map = PerCpuArray::<_, Counters>::try_from(ebpf.map("COUNTERS").unwrap()).unwrap();
    let all = keys.map(|key| {
        let mut sum = Counters::default();
        for part in map.get(&key, 0).unwrap().iter() {
            sum.merge(part);
        }
        (key, sum)
    });
    all.filter(|(_, sum)| *sum != Counters::default()).collect()
}

/// Returns the values that the whole map must hold after one frame of the corpus.
fn expected(frame: &CorpusFrame, direction: Direction) -> Counted {
    let mut counters = Counters::default();
    let side = counters.side(direction);
    side.packets[frame.cast as usize] = 1;
    side.bytes = frame.bytes.len() as u64;
    BTreeMap::from([(key(frame.row), counters)])
}

/// Returns the verdict and the counts of the packet logic when it runs on the host.
fn by_host(fixture: &TableFixture, bytes: Bytes<'_>, direction: Direction) -> (Verdict, Counted) {
    let headers = parse(&bytes);
    let verdict = classify(&bytes, &headers, direction, fixture);
    let mut counters = Counters::default();
    let wire = wire(&bytes, &headers);
    let done = match fixture.policy.dry_run {
        0 => verdict,
        _ => Verdict::Pass,
    };
    counters.add(direction, headers.cast, wire, verdict, done);
    (verdict, BTreeMap::from([(headers.vlan.key(), counters)]))
}

/// Freshly loaded programs, maps with every endpoint, and the counts that are expected in them. They are loaded once
/// for many frames, because the verifier dominates the running time under emulation.
struct Loaded {
    ebpf: Ebpf,
    /// The program that runs.
    program: &'static str,
    expected: Counted,
    /// The helper programs that pass in frames with a tag in metadata, by program.
    tagged: BTreeMap<&'static str, TaggedRun>,
}

impl Loaded {
    fn new(program: &'static str, fixture: &TableFixture) -> Self {
        Self::all(&[program], fixture)
    }

    /// Loads several programs that share their maps.
    fn all(programs: &[&'static str], fixture: &TableFixture) -> Self {
        let mut ebpf = load::load(&fixture.policy, 0).unwrap();
        for &program in programs {
            match program {
                load::XDP => drop(load::xdp(&mut ebpf).unwrap()),
                name => drop(load::tc(&mut ebpf, name).unwrap()),
            }
        }
        fixture.install(&mut ebpf).unwrap();
        Self {
            ebpf,
            program: programs[0],
            expected: Counted::new(),
            tagged: BTreeMap::new(),
        }
    }

    /// Runs a frame in the kernel and on the host: both must agree with the expectation on the verdict, on every
    /// byte, and on the counts of its VLAN. Returns the host's counts.
    fn meets(
        &mut self,
        at: &str,
        frame: &[u8],
        direction: Direction,
        verdict: Verdict,
        fixture: &TableFixture,
    ) -> Counted {
        let without = as_it_leaves(frame);
        let frame = match (direction, &without) {
            (Direction::Tx, Some((bytes, tag))) => Bytes {
                stripped_tag: Some(*tag),
                ..Bytes::new(bytes)
            },
            _ => Bytes::new(frame),
        };
        self.meets_as(at, frame, direction, verdict, fixture)
    }

    /// Runs a frame as [`Self::meets`] does, and leaves a tag where it is.
    fn meets_as(
        &mut self,
        at: &str,
        frame: Bytes<'_>,
        direction: Direction,
        verdict: Verdict,
        fixture: &TableFixture,
    ) -> Counted {
        let (by_host, counted) = by_host(fixture, frame, direction);
        assert_eq!(by_host, verdict, "{at}, by the host");
        let done = match fixture.policy.dry_run {
            0 => verdict,
            _ => Verdict::Pass,
        };
        let program = self.program;
        let (code, left) = self.run(frame);
        let (expected_code, expected_frame) = carried_out(program, done, frame.bytes);
        assert_eq!(code, expected_code, "{program}: {at}");
        assert_eq!(left, expected_frame, "{program}: {at}");
        for (&key, counted) in &counted {
            let sum = self.expected.entry(key).or_default();
            sum.merge(counted);
            let found = counters(&self.ebpf, [key].into_iter());
            assert_eq!(found.get(&key), Some(&*sum), "{program}: {at}");
        }
        counted
    }

    /// Runs one frame; returns the program's result and the resulting frame.
    fn run(&mut self, frame: Bytes<'_>) -> (u32, Vec<u8>) {
        if let Some(tag) = frame.stripped_tag {
            let program = load::tc(&mut self.ebpf, self.program).unwrap();
            let fd = program.fd().unwrap();
            let tagged = self.tagged.entry(self.program);
            let tagged = tagged.or_insert_with(|| TaggedRun::new(fd).unwrap());
            return tagged.run(frame.bytes, tag).unwrap();
        }
        let frame = frame.bytes;
        let mut left = vec![0; frame.len() + 256];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut left),
            ..TestRunOptions::new()
        };
        let result = match self.program {
            load::XDP => load::xdp(&mut self.ebpf).unwrap().test_run(options),
            name => load::tc(&mut self.ebpf, name).unwrap().test_run(options),
        }
        .unwrap();
        left.truncate(result.data_size_out as usize);
        (result.return_value, left)
    }

    /// Resets the limits of every VLAN, as if there had been no broadcast yet.
    fn calm(&mut self) {
        let map = self.ebpf.map_mut("BUCKETS").unwrap();
        let mut buckets = Array::<_, [u64; 4]>::try_from(map).unwrap();
        // Only the VLANs with traffic are reset; frames without a VLAN have no bucket.
        for key in self.expected.keys().filter(|&&key| key < 4096) {
            buckets.set(*key, [0; 4], 0).unwrap();
        }
    }

    /// Checks that no other VLAN has counted anything.
    fn counted_nothing_else(&self) {
        let all = Vlan::all().map(Vlan::key);
        assert_eq!(counters(&self.ebpf, all), self.expected, "{}", self.program);
    }
}

/// Moves a frame's tag into metadata, where the kernel has it on egress.
fn as_it_leaves(frame: &[u8]) -> Option<(Vec<u8>, Tag)> {
    let [high, low] = *frame.get(14..16)?.as_array()?;
    let tag = Tag {
        tpid: Tag::C_TAG,
        tci: u16::from_be_bytes([high, low]),
    };
    let rest = [&frame[..12], &frame[16..]].concat();
    (frame[12..14] == tag.tpid.to_be_bytes() && rest.len() >= 14).then_some((rest, tag))
}

/// Returns a program's result for a verdict, and the resulting frame.
fn carried_out(program: &str, verdict: Verdict, frame: &[u8]) -> (u32, Vec<u8>) {
    const XDP_DROP: u32 = 1;
    const XDP_PASS: u32 = 2;
    const TC_ACT_UNSPEC: u32 = -1i32 as u32;
    const TC_ACT_SHOT: u32 = 2;
    const TC_ACT_REDIRECT: u32 = 7;
    let mut left = frame.to_vec();
    if let Verdict::Steer { mac } = verdict {
        left[..6].copy_from_slice(&mac.0);
    }
    if let Verdict::Reflect { mac } = verdict {
        untag(&mut left);
        left[..6].copy_from_slice(&mac.0);
        return (TC_ACT_REDIRECT, left);
    }
    if let Verdict::Shortcut { mac, .. } | Verdict::ShortcutAndProbe { mac, .. } = verdict {
        untag(&mut left);
        left[..6].copy_from_slice(&mac.0);
        left[6..12].copy_from_slice(&FAR_PARENT);
        forward(&mut left[14..]);
        return (TC_ACT_REDIRECT, left);
    }
    if let Verdict::Deliver { .. } = verdict {
        untag(&mut left);
        return (TC_ACT_REDIRECT, left);
    }
    let code = match (program == load::XDP, verdict) {
        (true, Verdict::Drop(_)) => XDP_DROP,
        (true, _) => XDP_PASS,
        (false, Verdict::Drop(_)) => TC_ACT_SHOT,
        (false, _) => TC_ACT_UNSPEC,
    };
    (code, left)
}

/// Removes the tags from the bytes.
fn untag(frame: &mut Vec<u8>) {
    while frame[12..14] == [0x81, 0] {
        frame.drain(12..16);
    }
}

/// Changes a packet as a router does, and computes its checksum from scratch.
fn forward(packet: &mut [u8]) {
    match packet[0] >> 4 {
        4 => {
            packet[8] -= 1;
            let checksum = ipv4_checksum(packet);
            packet[10..12].copy_from_slice(&checksum);
        }
        _ => packet[7] -= 1,
    }
}

/// Runs the whole corpus through one program.
fn agrees(program: &'static str, direction: Direction) {
    require!(program, nix::unistd::geteuid().is_root(), "needs root");
    // Without endpoints there is nothing to steer.
    let fixture = || TableFixture::nobody(STEERING);
    let mut loaded = Loaded::new(program, &fixture());
    for frame in corpus() {
        let name = frame.name;
        let counted = loaded.meets(name, &frame.bytes, direction, Verdict::Pass, &fixture());
        let expected = expected(&frame, direction);
        assert_eq!(counted, expected, "the host's run counts {name} wrongly");
        loaded.calm();
    }
    loaded.counted_nothing_else();
}

#[test]
fn xdp_agrees_with_the_corpus_and_the_host() {
    agrees(load::XDP, Direction::Rx);
}

#[test]
fn tc_ingress_agrees_with_the_corpus_and_the_host() {
    agrees(load::RX, Direction::Rx);
}

#[test]
fn tc_egress_agrees_with_the_corpus_and_the_host() {
    agrees(load::TX, Direction::Tx);
}

#[test]
fn the_corpus_has_every_cast_and_kind_of_frame() {
    let corpus = corpus();
    for cast in [Cast::Unicast, Cast::Multicast, Cast::Broadcast] {
        assert!(
            corpus
                .iter()
                .any(|frame| frame.cast == cast && frame.row == CounterKey::Vlan(10))
        );
    }
    for row in [
        CounterKey::Vlan(0),
        CounterKey::Vlan(4094),
        CounterKey::Service,
        CounterKey::Truncated,
    ] {
        assert!(corpus.iter().any(|frame| frame.row == row), "{row:?}");
    }
    let mut names: Vec<_> = corpus.iter().map(|frame| frame.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), corpus.len(), "two frames have one name");
}

#[test]
fn the_verifier_accepts_every_program_within_the_limit() {
    require!("verifier", nix::unistd::geteuid().is_root(), "needs root");
    let everything = |shortcut: Shortcut| Policy {
        host_access: 1,
        deliver: 1,
        shortcut: shortcut as u32,
        shortcut_refresh: 30,
        ..ALL
    };
    let alone = Policy {
        shortcut: Shortcut::Allow as u32,
        ..Policy::default()
    };
    for (policy, level, most) in [
        // The kernel's limit is a million instructions; a third of it leaves room for features. Linux 6.1 takes
        // 65,000 for the headers of a buffer alone, and verifies the part that reads addresses again at each use.
        (ALL, 0, 300_000),
        (everything(Shortcut::Allow), 0, 300_000),
        (everything(Shortcut::Learned), 0, 300_000),
        (alone, 0, 200_000),
        // The programs log a message for every frame.
        (alone, EVERY_FRAME, 1_000_000),
        (everything(Shortcut::Allow), EVERY_FRAME, 1_000_000),
        (everything(Shortcut::Learned), EVERY_FRAME, 1_000_000),
    ] {
        for name in [load::XDP, load::RX, load::TX, load::PARENT] {
            let mut ebpf = load::load(&policy, level).unwrap();
            let info = match name {
                load::XDP => load::xdp(&mut ebpf).unwrap().info(),
                _ => load::tc(&mut ebpf, name).unwrap().info(),
            }
            .unwrap();
            let verified = info.verified_instruction_count().unwrap_or(0);
            let jited = info.size_jitted();
            let shortcut = Shortcut::from_number(policy.shortcut).name();
            let beside = if policy.shed == 0 {
                "nothing"
            } else {
                "everything"
            };
            println!(
                "figure: {name}, shortcut {shortcut}, {beside} else, messages {level}: {verified} instructions \
                 verified, {jited} bytes of machine code"
            );
            assert!(verified > 0, "{name}: the kernel does not say");
            assert!(verified < most, "{name}: {verified}");
        }
    }
}

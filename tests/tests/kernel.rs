//! Level `kernel`: the object that ships, through `BPF_PROG_TEST_RUN`, frame by frame. The kernel,
//! the host's own run of the same logic, and the corpus must say the same.

use std::collections::BTreeMap;

use aya::{
    Ebpf,
    maps::PerCpuArray,
    programs::{TestRun, TestRunOptions},
};
use vlanfast::datapath::load;
use vlanfast_common::{
    Bytes, Counters, Direction, Policy, Settings, Verdict, Vlan, classify, parse, wire,
};
use vlanfast_tests::{
    decisions::{Decided, over_the_limit, reflecting, shedding, shortcutting, steering},
    messages::ipv4_checksum,
    packet::{self, Named, Row, corpus},
    require,
    world::{FAR_PARENT, World},
};

/// The counters' key that a row of the corpus stands for, by the documented numbers.
fn key(row: Row) -> u32 {
    match row {
        Row::Vlan(vid) => vid.into(),
        Row::Service => 4096,
        Row::Truncated => 4097,
    }
}

/// What is counted, by key; what is not there is 0.
type Counted = BTreeMap<u32, Counters>;

fn counters(ebpf: &Ebpf) -> Counted {
    let map = PerCpuArray::<_, Counters>::try_from(ebpf.map("COUNTERS").unwrap()).unwrap();
    let all = Vlan::all().map(|vlan| {
        let mut sum = Counters::default();
        for part in map.get(&vlan.key(), 0).unwrap().iter() {
            sum.merge(part);
        }
        (vlan.key(), sum)
    });
    all.filter(|(_, sum)| *sum != Counters::default()).collect()
}

/// The corpus' expectation, as what the whole map must hold after one frame.
fn expected(frame: &Named, direction: Direction) -> Counted {
    let mut counters = Counters::default();
    let side = counters.side(direction);
    side.packets[frame.cast as usize] = 1;
    side.bytes = frame.bytes.len() as u64;
    BTreeMap::from([(key(frame.row), counters)])
}

/// The same by the host's run of the packet logic.
fn by_host(world: &World, frame: &[u8], direction: Direction) -> (Verdict, Counted) {
    let bytes = Bytes::new(frame);
    let headers = parse(&bytes);
    let verdict = classify(&bytes, &headers, direction, world);
    let mut counters = Counters::default();
    let wire = wire(&bytes, &headers);
    let done = match world.policy.dry_run {
        0 => verdict,
        _ => Verdict::Pass,
    };
    counters.add(direction, headers.cast, wire, verdict, done);
    (verdict, BTreeMap::from([(headers.vlan.key(), counters)]))
}

/// A program, freshly loaded, and the maps with everybody in them.
struct Loaded {
    ebpf: Ebpf,
    program: &'static str,
}

impl Loaded {
    fn new(program: &'static str, world: &World) -> Self {
        let mut ebpf = load::load(&world.policy, 0).unwrap();
        match program {
            load::XDP => drop(load::xdp(&mut ebpf).unwrap()),
            name => drop(load::tc(&mut ebpf, name).unwrap()),
        }
        world.install(&mut ebpf).unwrap();
        Self { ebpf, program }
    }

    /// Runs one frame: what the program returns, the frame that it leaves, what it has counted by then.
    fn run(&mut self, frame: &[u8]) -> (u32, Vec<u8>, Counted) {
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
        (result.return_value, left, counters(&self.ebpf))
    }
}

/// What a program returns for a verdict, and what the frame is then.
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
        // Without its tag, which is among the bytes here.
        left.drain(12..16);
        left[..6].copy_from_slice(&mac.0);
        return (TC_ACT_REDIRECT, left);
    }
    if let Verdict::Shortcut { mac, .. } = verdict {
        left.drain(12..16);
        left[..6].copy_from_slice(&mac.0);
        left[6..12].copy_from_slice(&FAR_PARENT);
        forward(&mut left[14..]);
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

/// Makes of a packet what a router does, with its checksum computed from scratch.
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
    // Nobody is there: nothing to steer.
    let world = World::nobody(STEERING);
    for frame in corpus() {
        let name = frame.name;
        let (verdict, counted) = by_host(&world, &frame.bytes, direction);
        assert_eq!(
            counted,
            expected(&frame, direction),
            "the host's run counts {name} wrongly"
        );
        assert_eq!(verdict, Verdict::Pass, "{name}");
        let (code, left, counted) = Loaded::new(program, &world).run(&frame.bytes);
        let (passed, whole) = carried_out(program, Verdict::Pass, &frame.bytes);
        assert_eq!(code, passed, "{program} does not pass {name}");
        assert_eq!(left, whole, "{program} changes {name}");
        assert_eq!(counted, expected(&frame, direction), "{program}: {name}");
    }
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

const STEERING: Policy = Policy {
    steer: 1,
    // One, so that the second frame is over it.
    storm_limit: 1,
    shed: 0,
    dry_run: 0,
    host_access: 0,
    shortcut: 0,
    reserved: [0; 2],
};

/// Everything is switched on.
const ALL: Policy = Policy {
    shed: 2,
    ..STEERING
};

/// Runs frames through both ingress programs: the host, the kernel and the expectation must agree on the
/// verdict, on what is counted and on every byte. `before` goes first.
fn decides(frames: &[Decided], before: Option<&Decided>, world: impl Fn() -> World) {
    for program in [load::XDP, load::RX] {
        decides_at((program, Direction::Rx), frames, before, &world);
    }
}

/// The same for one program.
fn decides_at(
    (program, direction): (&'static str, Direction),
    frames: &[Decided],
    before: Option<&Decided>,
    world: impl Fn() -> World,
) {
    require!("decisions", nix::unistd::geteuid().is_root(), "needs root");
    for frame in frames {
        let name = frame.name;
        let world = world();
        let mut loaded = Loaded::new(program, &world);
        let mut counted_before = Counted::new();
        if let Some(before) = before {
            let (verdict, counted) = by_host(&world, &before.bytes, direction);
            assert_eq!(verdict, before.verdict, "{}, by the host", before.name);
            assert_eq!(loaded.run(&before.bytes).2, counted);
            counted_before = counted;
        }
        let (verdict, mut expected) = by_host(&world, &frame.bytes, direction);
        assert_eq!(verdict, frame.verdict, "{name}, by the host");
        for (key, before) in counted_before {
            expected.entry(key).or_default().merge(&before);
        }
        let (code, left, counted) = loaded.run(&frame.bytes);
        let done = match world.policy.dry_run {
            0 => verdict,
            _ => Verdict::Pass,
        };
        let (expected_code, expected_frame) = carried_out(program, done, &frame.bytes);
        assert_eq!(code, expected_code, "{program}: {name}");
        assert_eq!(left, expected_frame, "{program}: {name}");
        assert_eq!(counted, expected, "{program}: {name}");
    }
}

/// Frames that are to be passed.
fn passed(frames: Vec<Decided>) -> Vec<Decided> {
    let passed = |frame| Decided {
        verdict: Verdict::Pass,
        ..frame
    };
    frames.into_iter().map(passed).collect()
}

/// The same frames where nothing may be decided.
fn passes(frames: Vec<Decided>, before: Option<&Decided>, world: impl Fn() -> World) {
    let frames = passed(frames);
    decides(&frames, before, world);
}

fn absent() -> Decided {
    let steering = steering();
    let name = "ARP request for an absent host";
    steering
        .into_iter()
        .find(|frame| frame.name == name)
        .unwrap()
}

#[test]
fn frames_that_seek_one_taker_go_to_that_one() {
    for policy in [STEERING, ALL] {
        // With all of it switched on, the frames of a VLAN without device end.
        let mut frames = steering();
        frames.retain(|frame| policy.shed == 0 || !frame.name.contains("without device"));
        decides(&frames, None, || World::new(policy).unwrap());
    }
}

#[test]
fn a_storm_is_cut_off_at_its_limit() {
    decides(&over_the_limit(), Some(&absent()), || {
        World::new(STEERING).unwrap()
    });
}

#[test]
fn frames_for_nobody_here_are_shed() {
    decides(&shedding(), None, || World::new(ALL).unwrap());
}

#[test]
fn what_leaves_for_this_host_comes_in_again() {
    let policy = Policy {
        host_access: 1,
        ..ALL
    };
    let egress = (load::TX, Direction::Tx);
    decides_at(egress, &reflecting(), None, || World::new(policy).unwrap());
    let frames = passed(reflecting());
    decides_at(egress, &frames, None, || World::new(ALL).unwrap());
    decides_at(egress, &frames, None, || {
        let mut world = World::new(policy).unwrap();
        world.settings.heartbeat = 1;
        world
    });
}

#[test]
fn what_the_router_would_bring_back_takes_the_shortcut() {
    let policy = Policy { shortcut: 1, ..ALL };
    let both = Policy {
        host_access: 1,
        ..policy
    };
    let egress = (load::TX, Direction::Tx);
    for policy in [policy, both] {
        decides_at(egress, &shortcutting(), None, || {
            World::new(policy).unwrap()
        });
    }
    decides_at(egress, &reflecting(), None, || World::new(both).unwrap());
    let frames = passed(shortcutting());
    decides_at(egress, &frames, None, || World::new(ALL).unwrap());
    decides_at(egress, &frames, None, || {
        let mut world = World::new(policy).unwrap();
        world.settings.heartbeat = 1;
        world
    });
    let dry = Policy {
        dry_run: 1,
        ..policy
    };
    decides_at(egress, &shortcutting(), None, || World::new(dry).unwrap());
}

#[test]
fn what_is_switched_off_is_not_done() {
    let nothing = Policy::default();
    passes(shedding(), None, || World::new(STEERING).unwrap());
    passes(over_the_limit(), Some(&absent()), || {
        World::new(nothing).unwrap()
    });
    let limit_alone = Policy {
        steer: 0,
        ..STEERING
    };
    let mut frames = steering();
    frames.retain(|frame| frame.verdict != Verdict::Disputed);
    passes(frames, None, || World::new(limit_alone).unwrap());
}

#[test]
fn without_a_heartbeat_every_frame_is_passed() {
    let dead = || {
        let mut world = World::new(ALL).unwrap();
        // A moment after the machine's start.
        world.settings.heartbeat = 1;
        world
    };
    passes(over_the_limit(), Some(&absent()), dead);
    passes(shedding(), None, dead);
    let mut frames = steering();
    frames.retain(|frame| frame.verdict != Verdict::Disputed);
    passes(frames, None, dead);
}

#[test]
fn tables_without_room_for_everybody_are_no_reason_to_drop() {
    let incomplete = || {
        let mut world = World::new(ALL).unwrap();
        world.settings.incomplete = Settings::ENDPOINTS | Settings::NEIGHBORS;
        world
    };
    let is_drop = |frame: &Decided| matches!(frame.verdict, Verdict::Drop(_));
    let by_tables = |frame: &Decided| is_drop(frame) && !frame.name.contains("without device");
    let mut frames = [over_the_limit(), shedding()].concat();
    frames.retain(by_tables);
    assert!(frames.len() > 4);
    passes(frames, Some(&absent()), incomplete);
}

#[test]
fn a_dry_run_counts_and_changes_nothing() {
    let dry = Policy { dry_run: 1, ..ALL };
    decides(&over_the_limit(), Some(&absent()), || {
        World::new(dry).unwrap()
    });
    decides(&shedding(), None, || World::new(dry).unwrap());
}

#[test]
fn the_corpus_has_every_cast_and_kind_of_frame() {
    let corpus = corpus();
    for cast in [
        packet::Cast::Unicast,
        packet::Cast::Multicast,
        packet::Cast::Broadcast,
    ] {
        assert!(
            corpus
                .iter()
                .any(|frame| frame.cast == cast && frame.row == Row::Vlan(10))
        );
    }
    for row in [Row::Vlan(0), Row::Vlan(4094), Row::Service, Row::Truncated] {
        assert!(corpus.iter().any(|frame| frame.row == row), "{row:?}");
    }
    let mut names: Vec<_> = corpus.iter().map(|frame| frame.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), corpus.len(), "two frames have one name");
}

#[test]
fn the_verifier_takes_every_program_and_says_at_what_cost() {
    require!("verifier", nix::unistd::geteuid().is_root(), "needs root");
    for name in [load::XDP, load::RX, load::TX] {
        let mut ebpf = load::load(&ALL, 0).unwrap();
        let info = match name {
            load::XDP => load::xdp(&mut ebpf).unwrap().info(),
            _ => load::tc(&mut ebpf, name).unwrap().info(),
        }
        .unwrap();
        let verified = info.verified_instruction_count().unwrap_or(0);
        let jited = info.size_jitted();
        println!("figure: {name}: {verified} instructions verified, {jited} bytes of machine code");
        // A million is the kernel's limit; a tenth of it leaves the features room.
        assert!(verified > 0, "{name}: the kernel does not say");
        assert!(verified < 100_000, "{name}: {verified}");
    }
}

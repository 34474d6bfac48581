//! Level `kernel`: the object that ships, through `BPF_PROG_TEST_RUN`, frame by frame. The kernel,
//! the host's own run of the same logic, and the corpus must say the same.

use aya::{
    Ebpf,
    maps::PerCpuArray,
    programs::{TestRun, TestRunOptions},
};
use vlanfast::datapath::load;
use vlanfast_common::{Bytes, Counters, Direction, Verdict, Vlan, classify, parse, wire};
use vlanfast_tests::{
    packet::{self, Named, Row, corpus},
    require,
};

/// What the programs return for `Verdict::Pass`.
const XDP_PASS: u32 = 2;
const TC_ACT_UNSPEC: u32 = -1i32 as u32;

/// The counters' key that a row of the corpus stands for, by the documented numbers.
fn key(row: Row) -> u32 {
    match row {
        Row::Vlan(vid) => vid.into(),
        Row::Service => 4096,
        Row::Truncated => 4097,
    }
}

fn counters(ebpf: &Ebpf) -> Vec<Counters> {
    let map = PerCpuArray::<_, Counters>::try_from(ebpf.map("COUNTERS").unwrap()).unwrap();
    Vlan::all()
        .map(|vlan| {
            let mut sum = Counters::default();
            for part in map.get(&vlan.key(), 0).unwrap().iter() {
                sum.rx.merge(&part.rx);
                sum.tx.merge(&part.tx);
            }
            sum
        })
        .collect()
}

/// The corpus' expectation, as what the whole map must hold after one frame.
fn expected(frame: &Named, direction: Direction) -> Vec<Counters> {
    let mut all = vec![Counters::default(); Vlan::COUNT as usize];
    let side = all[key(frame.row) as usize].side(direction);
    side.packets[frame.cast as usize] = 1;
    side.bytes = frame.bytes.len() as u64;
    all
}

/// The same by the host's run of the packet logic.
fn by_host(frame: &Named, direction: Direction) -> (Verdict, Vec<Counters>) {
    let bytes = Bytes::new(&frame.bytes);
    let headers = parse(&bytes);
    let mut all = vec![Counters::default(); Vlan::COUNT as usize];
    let side = all[headers.vlan.key() as usize].side(direction);
    side.add(headers.cast, wire(&bytes, &headers));
    (classify(&headers), all)
}

/// Runs one frame through a freshly loaded program: its verdict, the frame it leaves, the counters.
fn by_kernel(program: &str, frame: &[u8]) -> (u32, Vec<u8>, Vec<Counters>) {
    let mut ebpf = load::load(0).unwrap();
    let mut left = vec![0; frame.len() + 256];
    let options = TestRunOptions {
        data_in: Some(frame),
        data_out: Some(&mut left),
        ..TestRunOptions::new()
    };
    let result = match program {
        load::XDP => load::xdp(&mut ebpf).unwrap().test_run(options),
        name => load::tc(&mut ebpf, name).unwrap().test_run(options),
    }
    .unwrap();
    left.truncate(result.data_size_out as usize);
    (result.return_value, left, counters(&ebpf))
}

/// Runs the whole corpus through one program.
fn agrees(program: &str, direction: Direction, pass: u32) {
    require!(program, nix::unistd::geteuid().is_root(), "needs root");
    for frame in corpus() {
        let name = frame.name;
        let (verdict, counted) = by_host(&frame, direction);
        assert_eq!(
            counted,
            expected(&frame, direction),
            "the host's run counts {name} wrongly"
        );
        assert_eq!(verdict, Verdict::Pass, "{name}");
        let (verdict, left, counted) = by_kernel(program, &frame.bytes);
        assert_eq!(verdict, pass, "{program} does not pass {name}");
        assert_eq!(left, frame.bytes, "{program} changes {name}");
        for (vlan, (is, should)) in counted.iter().zip(expected(&frame, direction)).enumerate() {
            assert_eq!(*is, should, "{program} counts {name} wrongly, key {vlan}");
        }
    }
}

#[test]
fn xdp_agrees_with_the_corpus_and_the_host() {
    agrees(load::XDP, Direction::Rx, XDP_PASS);
}

#[test]
fn tc_ingress_agrees_with_the_corpus_and_the_host() {
    agrees(load::RX, Direction::Rx, TC_ACT_UNSPEC);
}

#[test]
fn tc_egress_agrees_with_the_corpus_and_the_host() {
    agrees(load::TX, Direction::Tx, TC_ACT_UNSPEC);
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
        let mut ebpf = load::load(0).unwrap();
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

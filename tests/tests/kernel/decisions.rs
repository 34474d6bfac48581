//! Runs the tables of cases: the host, the kernel and the expected verdict must agree on each frame.

use vlanfast::maps::load;
use vlanfast_common::{Bytes, Direction, Policy, Reason, Settings, Verdict};
use vlanfast_tests::{
    cases::{
        deliver::delivering,
        egress::reflecting,
        frame_case::FrameCase,
        limits::{over_the_groups_limit, over_the_limit, over_the_limit_for_some},
        shortcut::shortcutting,
        steering::{shedding, steering},
    },
    fixtures::tables::{SIBLING, TableFixture},
    require,
};

use super::Loaded;

pub const STEERING: Policy = Policy {
    steer: 1,
    // The limit is one frame, so that the second frame exceeds it.
    dry_run: 0,
    storm_limit: 1,
    shed: 0,
    group_limit: 0,
    host_access: 0,
    shortcut: 0,
    shortcut_refresh: 0,
    deliver: 0,
};

/// The policy with every feature switched on.
pub const ALL: Policy = Policy {
    shed: 2,
    ..STEERING
};

/// Runs frames through both ingress programs, each in a fixture of its own into which `before` is sent first.
fn decides(frames: &[FrameCase], before: Option<&FrameCase>, fixture: impl Fn() -> TableFixture) {
    for program in [load::XDP, load::RX] {
        decides_at((program, Direction::Rx), frames, before, &fixture);
    }
}

/// Runs frames through one program, each in a fixture of its own into which `before` is sent first.
fn decides_at(
    (program, direction): (&'static str, Direction),
    frames: &[FrameCase],
    before: Option<&FrameCase>,
    fixture: impl Fn() -> TableFixture,
) {
    require!("decisions", nix::unistd::geteuid().is_root(), "needs root");
    let mut loaded = Loaded::new(program, &fixture());
    for frame in frames {
        let fixture = fixture();
        for frame in before.into_iter().chain([frame]) {
            loaded.meets(frame.name, &frame.bytes, direction, frame.verdict, &fixture);
        }
        loaded.calm();
    }
    loaded.counted_nothing_else();
}

/// Runs frames through the egress program.
fn decides_on_egress(frames: &[FrameCase], policy: Policy) {
    decides_at((load::TX, Direction::Tx), frames, None, || {
        TableFixture::new(policy).unwrap()
    });
}

/// Checks that egress passes the frames without the policy, and without a heartbeat.
fn passes_on_egress(frames: Vec<FrameCase>, policy: Policy) {
    let frames = passed(frames);
    decides_on_egress(&frames, ALL);
    decides_at((load::TX, Direction::Tx), &frames, None, || {
        let mut fixture = TableFixture::new(policy).unwrap();
        // The time is shortly after the machine's start.
        fixture.settings.heartbeat = 1;
        fixture
    });
}

/// Returns the frames with the verdict `Pass`.
pub fn passed(frames: Vec<FrameCase>) -> Vec<FrameCase> {
    let passed = |frame| FrameCase {
        verdict: Verdict::Pass,
        ..frame
    };
    frames.into_iter().map(passed).collect()
}

/// Returns the frames that have one tag, of VLAN 10, without the tag.
pub fn untagged(frames: Vec<FrameCase>) -> Vec<FrameCase> {
    let untagged = |mut frame: FrameCase| {
        let tag: Vec<_> = frame.bytes.drain(12..16).collect();
        let is_tagged = frame.bytes[12..14] == [0x81, 0];
        // This container is on VLAN 10 only.
        let is_sibling = frame.bytes[..6] == SIBLING;
        (tag == [0x81, 0, 0, 10] && !is_tagged && !is_sibling).then_some(frame)
    };
    frames.into_iter().filter_map(untagged).collect()
}

/// Checks that the frames are passed where no decision is allowed.
fn passes(frames: Vec<FrameCase>, before: Option<&FrameCase>, fixture: impl Fn() -> TableFixture) {
    let frames = passed(frames);
    decides(&frames, before, fixture);
}

fn absent() -> FrameCase {
    let steering = steering();
    let name = "ARP request for an absent host";
    steering
        .into_iter()
        .find(|frame| frame.name == name)
        .unwrap()
}

#[test]
fn frames_for_one_endpoint_are_steered_to_it() {
    for policy in [STEERING, ALL] {
        // With every feature on, frames of a VLAN without a device are dropped.
        let mut frames = steering();
        frames.retain(|frame| policy.shed == 0 || !frame.name.contains("without device"));
        decides(&frames, None, || TableFixture::new(policy).unwrap());
    }
}

#[test]
fn a_storm_is_cut_off_at_its_limit() {
    decides(&over_the_limit(), Some(&absent()), || {
        TableFixture::new(STEERING).unwrap()
    });
}

#[test]
fn requests_that_cannot_be_steered_have_a_limit_of_their_own() {
    let frames = over_the_limit_for_some();
    let before = frames[0].clone();
    decides(
        &frames,
        Some(&FrameCase {
            verdict: Verdict::Conflict,
            ..before
        }),
        || TableFixture::new(STEERING).unwrap(),
    );
}

#[test]
fn other_group_frames_have_another_limit() {
    let policy = Policy {
        group_limit: 1,
        ..STEERING
    };
    let frames = over_the_groups_limit();
    assert!(frames.len() > 20);
    let before = FrameCase {
        verdict: Verdict::Pass,
        ..frames[0].clone()
    };
    for steer in [0, 1] {
        let mut frames = frames.clone();
        frames.retain(|frame| steer == 1 || !matches!(frame.verdict, Verdict::Steer { .. }));
        decides(&frames, Some(&before), || {
            TableFixture::new(Policy { steer, ..policy }).unwrap()
        });
    }
}

#[test]
fn frames_without_a_receiver_are_shed() {
    decides(&shedding(), None, || TableFixture::new(ALL).unwrap());
}

#[test]
fn outgoing_frames_for_this_host_are_reflected() {
    let policy = Policy {
        host_access: 1,
        ..ALL
    };
    let dry = Policy {
        dry_run: 1,
        ..policy
    };
    for policy in [policy, dry] {
        decides_on_egress(&reflecting(), policy);
    }
    passes_on_egress(reflecting(), policy);
}

/// A tag in the bytes of an outgoing frame was written by its sender, and not by a VLAN device of the host.
#[test]
fn frames_that_a_container_tagged_itself_are_not_reflected() {
    require!("tags", nix::unistd::geteuid().is_root(), "needs root");
    let policy = Policy {
        host_access: 1,
        shortcut: 1,
        ..ALL
    };
    let mut frames = [reflecting(), shortcutting()].concat();
    frames.retain(|frame| frame.verdict != Verdict::Pass);
    assert!(frames.len() > 30);
    let fixture = TableFixture::new(policy).unwrap();
    let mut loaded = Loaded::new(load::TX, &fixture);
    for FrameCase { name, bytes, .. } in &frames {
        let bytes = Bytes::new(bytes);
        loaded.meets_as(name, bytes, Direction::Tx, Verdict::Pass, &fixture);
    }
    loaded.counted_nothing_else();
}

#[test]
fn routed_packets_between_local_vlans_take_the_shortcut() {
    let policy = Policy { shortcut: 1, ..ALL };
    let both = Policy {
        host_access: 1,
        ..policy
    };
    for policy in [policy, both] {
        decides_on_egress(&shortcutting(), policy);
    }
    // `BPF_PROG_TEST_RUN` cannot pass a tag in metadata. In an untagged frame the headers are where they are behind
    // such a tag.
    let frames = untagged(shortcutting());
    assert!(frames.len() > 20);
    decides_at((load::TX, Direction::Tx), &frames, None, || {
        TableFixture::new(policy).unwrap().untagged()
    });
    decides_on_egress(&reflecting(), both);
    passes_on_egress(shortcutting(), policy);
    let dry = Policy {
        dry_run: 1,
        ..policy
    };
    decides_on_egress(&shortcutting(), dry);
}

#[test]
fn unicast_for_a_local_device_is_delivered_to_it() {
    let policy = Policy {
        deliver: 1,
        ..STEERING
    };
    let at_tc = (load::RX, Direction::Rx);
    let dry = Policy {
        dry_run: 1,
        ..policy
    };
    for policy in [policy, dry] {
        decides_at(at_tc, &delivering(), None, || {
            TableFixture::new(policy).unwrap()
        });
    }
    // All other features are on too, which is the largest program that the verifier has to accept.
    let all = Policy {
        deliver: 1,
        host_access: 1,
        shortcut: 1,
        ..ALL
    };
    let both = [shedding(), taken()].concat();
    decides_at(at_tc, &both, None, || TableFixture::new(all).unwrap());
    let taken = passed(taken());
    decides_at(at_tc, &taken, None, || TableFixture::new(STEERING).unwrap());
    decides_at((load::XDP, Direction::Rx), &taken, None, || {
        let mut fixture = TableFixture::new(policy).unwrap();
        fixture.redirects = false;
        fixture
    });
    for (heartbeat, incomplete) in [
        // The time is shortly after the machine's start.
        (1, 0),
        (u64::MAX, Settings::ENDPOINTS),
        (u64::MAX, Settings::CHANGING),
    ] {
        decides_at(at_tc, &taken, None, || {
            let mut fixture = TableFixture::new(policy).unwrap();
            fixture.settings.heartbeat = heartbeat;
            fixture.settings.incomplete = incomplete;
            fixture
        });
    }
}

/// Returns the frames that are delivered.
fn taken() -> Vec<FrameCase> {
    let mut frames = delivering();
    frames.retain(|frame| frame.verdict != Verdict::Pass);
    frames
}

#[test]
fn features_that_are_switched_off_do_nothing() {
    let nothing = Policy::default();
    passes(shedding(), None, || TableFixture::new(STEERING).unwrap());
    passes(over_the_limit(), Some(&absent()), || {
        TableFixture::new(nothing).unwrap()
    });
    let limit_alone = Policy {
        steer: 0,
        ..STEERING
    };
    let mut frames = steering();
    frames.retain(|frame| frame.verdict != Verdict::Conflict);
    passes(frames, None, || TableFixture::new(limit_alone).unwrap());
}

#[test]
fn without_a_heartbeat_every_frame_is_passed() {
    let dead = || {
        let mut fixture = TableFixture::new(ALL).unwrap();
        // The time is shortly after the machine's start.
        fixture.settings.heartbeat = 1;
        fixture
    };
    passes(shedding(), None, dead);
    let mut frames = [over_the_limit(), over_the_limit_for_some()].concat();
    frames
        .retain(|frame| frame.verdict != Verdict::Conflict && !frame.name.contains("conflicting"));
    passes(frames, Some(&absent()), dead);
    let mut frames = steering();
    frames.retain(|frame| frame.verdict != Verdict::Conflict);
    passes(frames, None, dead);
}

#[test]
fn incomplete_tables_are_no_reason_to_drop() {
    let incomplete = || {
        let mut fixture = TableFixture::new(ALL).unwrap();
        fixture.settings.incomplete = Settings::ENDPOINTS | Settings::NEIGHBORS;
        fixture
    };
    let is_drop = |frame: &FrameCase| matches!(frame.verdict, Verdict::Drop(_));
    let by_tables = |frame: &FrameCase| is_drop(frame) && !frame.name.contains("without device");
    let mut frames = [over_the_limit(), shedding()].concat();
    frames.retain(by_tables);
    assert!(frames.len() > 4);
    passes(frames, Some(&absent()), incomplete);
}

#[test]
fn a_trunk_with_receivers_for_all_vlans_sheds_nothing() {
    let unseen = || {
        let mut fixture = TableFixture::new(ALL).unwrap();
        fixture.settings.incomplete = Settings::VLANS;
        fixture
    };
    let mut frames = shedding();
    frames.retain(|frame| frame.verdict == Verdict::Drop(Reason::ShedVlan));
    assert!(frames.len() > 1);
    passes(frames, None, unseen);
}

#[test]
fn a_dry_run_counts_and_changes_nothing() {
    let dry = Policy { dry_run: 1, ..ALL };
    decides(&over_the_limit(), Some(&absent()), || {
        TableFixture::new(dry).unwrap()
    });
    decides(&shedding(), None, || TableFixture::new(dry).unwrap());
}

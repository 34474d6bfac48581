//! Packets to a router and back, by which flows are learnt: the host, the kernel and the expectation must agree.

use std::thread;

use vlanfast::datapath::load;
use vlanfast_common::{Direction, Policy, Shortcut, Verdict};
use vlanfast_tests::{
    decisions::{Said, conversations},
    require,
    world::World,
};

use super::{Counted, Loaded, by_host, carried_out, counters, decisions::ALL};

/// Has a conversation, and compares each frame of it.
fn agrees(said: &Said, ingress: &'static str, policy: Policy, alive: bool) {
    let mut world = World::new(policy).unwrap();
    if !alive {
        world.settings.heartbeat = 1;
    }
    let mut loaded = Loaded::all(&[load::TX, ingress], &world);
    let mut expected = Counted::new();
    for (number, heard) in said.frames.iter().enumerate() {
        let at = format!("{}, frame {}, by {ingress}", said.name, number + 1);
        thread::sleep(heard.after);
        world
            .now
            .set(world.now.get() + heard.after.as_nanos() as u64);
        let (verdict, counted) = by_host(&world, &heard.bytes, heard.direction);
        if alive {
            assert_eq!(verdict, heard.verdict, "{at}, by the host");
        } else {
            assert_eq!(verdict, Verdict::Pass, "{at}, by the host");
        }
        for (key, counted) in counted {
            expected.entry(key).or_default().merge(&counted);
        }
        let program = match heard.direction {
            Direction::Tx => load::TX,
            Direction::Rx => ingress,
        };
        loaded.program = program;
        let (code, left) = loaded.pass(&heard.bytes);
        let done = match policy.dry_run {
            0 => verdict,
            _ => Verdict::Pass,
        };
        let (expected_code, expected_frame) = carried_out(program, done, &heard.bytes);
        assert_eq!(code, expected_code, "{at}");
        assert_eq!(left, expected_frame, "{at}");
    }
    assert_eq!(counters(&loaded.ebpf), expected, "{}", said.name);
}

fn learning(said: &Said) -> Policy {
    Policy {
        shed: 0,
        shortcut: Shortcut::Learned as u32,
        shortcut_refresh: said.refresh,
        ..ALL
    }
}

#[test]
fn what_the_router_sends_on_takes_the_shortcut_from_then_on() {
    require!("flows", nix::unistd::geteuid().is_root(), "needs root");
    for said in conversations() {
        for ingress in [load::RX, load::XDP] {
            agrees(&said, ingress, learning(&said), true);
        }
    }
}

#[test]
fn everything_else_may_be_switched_on_with_it() {
    require!("flows", nix::unistd::geteuid().is_root(), "needs root");
    for said in conversations().iter().filter(|said| said.refresh == 0) {
        let policy = Policy {
            host_access: 1,
            shed: 1,
            ..learning(said)
        };
        agrees(said, load::RX, policy, true);
    }
}

#[test]
fn a_dry_run_learns_and_changes_no_packet() {
    require!("flows", nix::unistd::geteuid().is_root(), "needs root");
    for said in conversations() {
        let policy = Policy {
            dry_run: 1,
            ..learning(&said)
        };
        agrees(&said, load::RX, policy, true);
    }
}

#[test]
fn without_a_heartbeat_nothing_is_learnt() {
    require!("flows", nix::unistd::geteuid().is_root(), "needs root");
    for said in conversations().iter().filter(|said| said.refresh == 0) {
        agrees(said, load::RX, learning(said), false);
    }
}
